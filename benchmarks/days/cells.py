"""What is trained: logs, the days that come to them, the model and its options, and how many seeds of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from ..study.cells import DATASETS, Cell, balanced

FRAMEWORKS = ("torch", "jax")

BASE, FULL, WARM = "base", "full", "warm"
KINDS = (BASE, FULL, WARM)
"""The runs of a chain: on yesterday's log; from scratch on today's; on today's from the run on yesterday's."""

PART_OF_STEPS = 3
"""A warm start has the steps of the full retraining up to its best epoch over this, in whole epochs."""


@dataclass(frozen=True)
class Day:
    """What comes to a log: the events of ``length`` days from midnight (UTC) of ``first`` on. Yesterday's log ends
    before them, today's with them."""

    first: str
    length: int = 1

    @property
    def begin(self) -> int:
        """The first second of the day since 1970."""
        return self._midnight(0)

    @property
    def end(self) -> int:
        """The first second after the day."""
        return self._midnight(self.length)

    def _midnight(self, days: int) -> int:
        day = date.fromisoformat(self.first) + timedelta(days)
        return int(datetime.combine(day, time(), UTC).timestamp())


@dataclass(frozen=True)
class Log:
    """A data set with the ``cell`` of its model and options, its ``days``, and the ``seeds`` of each day."""

    cell: Cell
    days: tuple[Day, ...]
    seeds: int


@dataclass(frozen=True)
class Chain:
    """The runs of a day from one seed, which follow from each other: a base run, a full retraining, and a warm start
    with a part of this one's steps."""

    cell: Cell
    day: Day
    framework: str
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What a row tells of it, in the order of `results.CHAIN`."""
        return self.cell.dataset.name, self.day.first, str(self.day.length), self.framework, str(self.seed)

    @property
    def name(self) -> str:
        """It for a terminal."""
        return f"{self.cell.dataset.name}, {self.day.first} + {self.day.length}, {self.framework}, seed {self.seed}"


_BATCH, _NEGATIVES = 128, 1024


def _cell(dataset: str, max_length: int) -> Cell:
    """The study's of this batch, length and number of negatives, which is trained until it has converged."""
    changes = {"batch_size": _BATCH, "max_length": max_length, "epochs": 200, "patience": 10}
    return Cell(DATASETS[dataset], balanced(_BATCH, _NEGATIVES, max_length), changes)


LOGS = {
    "git_commits": Log(
        _cell("git_commits", 50),
        (Day("2017-10-02", 7), Day("2018-10-01", 7), Day("2019-10-07", 7), Day("2018-10-01", 30)),
        seeds=3,
    ),
    "complete_journey": Log(
        _cell("complete_journey", 200),
        (Day("2017-09-15"), Day("2017-10-16"), Day("2017-11-15"), Day("2017-10-16", 7)),
        seeds=8,
    ),
}
"""A day of `complete_journey` and a week of `git_commits` bring about as much: 0.3% of the events so far. The longer
spans bring what several days do. Runs of `complete_journey` are short, and differ more from seed to seed."""

JAX_SEEDS = 2
"""Of the first day of a log in JAX, whose batches are PyTorch's."""


def select(datasets: Iterable[str], frameworks: Iterable[str]) -> list[Chain]:
    """The chains of ``datasets`` in ``frameworks``: JAX's, which compile longest, first, then a seed after the other,
    so that a benchmark that is stopped has all days."""
    datasets, frameworks = list(datasets), list(frameworks)
    chains: list[Chain] = []
    if "jax" in frameworks:
        for name in datasets:
            log = LOGS[name]
            chains += [Chain(log.cell, log.days[0], "jax", seed) for seed in range(1, JAX_SEEDS + 1)]
    if "torch" in frameworks:
        for seed in range(1, max(LOGS[name].seeds for name in datasets) + 1):
            for log in (LOGS[name] for name in datasets if seed <= LOGS[name].seeds):
                chains += [Chain(log.cell, day, "torch", seed) for day in log.days]
    return chains
