"""What runs reached and how they differ, from what they left in their folders."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError
from ..files import usable
from .config import TrainConfig
from .fingerprint import Fingerprint
from .learning_curve import plot_learning_curve
from .metrics_log import read_metrics_log
from .progress import SELECTION_METRIC, TrainResult
from .run_directory import NAMES, RunDirectory

logger = logging.getLogger(__name__)

MOST_DRAWN = 6
"""Runs in one picture, whose colours are still told apart."""

PICTURES = (".png", ".svg", ".pdf")

_RANKED_BY = ("filter_seen", "test_users")
"""Options that change what a metric is measured on."""


@dataclass(frozen=True)
class RunSummary:
    """A run of either framework: ``name`` tells it from the others of a comparison.

    ``test`` and ``popularity`` are metrics by name, empty until the run has finished; ``best_epoch`` counts from 0 and
    is None before the first validation; ``fingerprint`` is None for runs of before there were any.
    """

    name: str
    files: RunDirectory
    config: TrainConfig
    test: dict[str, float]
    popularity: dict[str, float]
    best_epoch: int | None
    seconds: float
    fingerprint: Fingerprint | None

    @property
    def framework(self) -> str:
        """The names of those that have a checkpoint in the folder."""
        found = [name for key, name in NAMES.items() if RunDirectory(self.files.path, key).checkpoints.is_dir()]
        return ", ".join(found) or "unknown"

    @classmethod
    def read(cls, path: Path, name: str) -> RunSummary:
        """Raises ``ConfigError`` for a folder without a run that has ended an epoch, and for damaged files."""
        files = RunDirectory(path.absolute(), "any")
        with usable("run", "the folder of a training run"):
            for file in (files.config, files.metrics_log):
                if not file.is_file():
                    raise ConfigError(f"run: expected the folder of a training run, got {path} without {file.name}")
            fingerprint = Fingerprint.read(files.fingerprint) if files.fingerprint.exists() else None
            config = TrainConfig.read(files.config)
            if files.result.exists():
                result = TrainResult.read(files.result)
                reached = result.test, result.popularity, result.best_epoch, result.seconds
            else:
                logger.warning("%s: has not finished: its best epoch so far, and no test", path)
                reached = {}, {}, *_so_far(files.metrics_log)
        return cls(name, files, config, *reached, fingerprint)


def _so_far(log: Path) -> tuple[int | None, float]:
    """The best epoch of a log, the first of equal ones, and its seconds."""
    rows = read_metrics_log(log)
    measured = [(row[SELECTION_METRIC], -row["epoch"]) for row in rows if SELECTION_METRIC in row]
    return int(-max(measured)[1]) if measured else None, rows[-1]["seconds"] if rows else 0.0


@dataclass(frozen=True)
class Comparison:
    """Several runs; ``differing`` are the options of which they have different values, by name, a value a run.

    `compare_runs` makes it.
    """

    runs: tuple[RunSummary, ...]
    differing: dict[str, tuple[Any, ...]]

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that a run was tested by, in order."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.test))

    @property
    def popularity(self) -> dict[str, float] | None:
        """What ranking by popularity reaches, if that is the same for all runs that know."""
        known = [run.popularity for run in self.runs if run.popularity]
        return known[0] if known and all(each == known[0] for each in known) else None

    def record(self) -> dict[str, Any]:
        """All of it for JSON."""
        runs = [
            {
                "run": str(run.files.path),
                "framework": run.framework,
                "test": run.test,
                "popularity": run.popularity,
                "best_epoch": run.best_epoch,
                "seconds": run.seconds,
                "data": None if run.fingerprint is None else dataclasses.asdict(run.fingerprint),
                "options": {name: values[place] for name, values in self.differing.items()},
            }
            for place, run in enumerate(self.runs)
        ]
        return {"runs": runs}

    def plot(self, path: Path) -> None:
        """Draws the learning curves of the first `MOST_DRAWN` runs into the image ``path``; raises ``ConfigError``
        where it cannot be written."""
        if path.suffix.lower() not in PICTURES:
            raise ConfigError(f"output: expected a file name that ends in {', '.join(PICTURES)}, got {path.name!r}")
        if len(self.runs) > MOST_DRAWN:
            logger.warning("%s: drew the first %d of %d runs", path, MOST_DRAWN, len(self.runs))
        with usable("output", "a file that can be written"):
            plot_learning_curve({run.name: run.files.metrics_log for run in self.runs[:MOST_DRAWN]}, path)


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Reads two or more runs, and warns of those whose metrics do not compare: of other events, or ranked otherwise.

    Raises ``ConfigError`` for fewer, for one that comes twice, and for a folder without a run.
    """
    folders = [path.resolve() for path in paths]
    if len(set(folders)) < max(len(folders), 2):
        raise ConfigError(f"run: expected two or more different runs, got {', '.join(map(str, paths)) or 'none'}")
    short = [folder.name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    runs = tuple(RunSummary.read(path, name) for path, name in zip(paths, names, strict=True))
    values = {
        field.name: tuple(getattr(run.config, field.name) for run in runs)
        for field in dataclasses.fields(TrainConfig)
        if field.name not in ("out", "resume")
    }
    differing = {name: each for name, each in values.items() if len(set(each)) > 1}
    _warn(runs, differing)
    return Comparison(runs, differing)


def _warn(runs: Sequence[RunSummary], differing: dict[str, tuple[Any, ...]]) -> None:
    known = [run for run in runs if run.fingerprint is not None]
    if len({run.fingerprint for run in known}) > 1:
        counts = "; ".join(
            f"{run.name}: {run.fingerprint.train_events} events to train on, {run.fingerprint.tested} tested users"
            for run in known
            if run.fingerprint is not None
        )
        logger.warning("the runs are of different data or splits, and their metrics do not compare (%s)", counts)
    ranked = [name for name in _RANKED_BY if name in differing]
    if "seed" in differing and any(run.config.test_users for run in runs):
        ranked.append("seed, which chooses test_users")
    if len({_num_items(run.files) for run in runs if run.files.catalog.is_file()}) > 1:
        ranked.append("the numbers of their items")
    if ranked:
        logger.warning("the runs rank differently, and their metrics do not compare (%s)", ", ".join(ranked))


def _num_items(files: RunDirectory) -> int:
    """Of a run's catalog."""
    with usable("run", "the folder of a training run", pa.ArrowException):
        return pq.read_metadata(files.catalog).num_rows
