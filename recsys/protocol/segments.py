"""Metrics of parts of the held-out targets: by the length of their histories, and by how often their items occur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from .metrics import RANK_METRICS, Ranks

HISTORY, ITEM = "history", "item"

BOUNDS: dict[str, tuple[int, ...]] = {HISTORY: (1, 6, 21, 51), ITEM: (0, 1, 6, 51)}
"""Of each way to part targets, the fewest events of each segment."""

METRICS = ("ndcg", "hr", "mrr")
"""By segment; recall and map of one target are hr and mrr, and coverage and surprisal are of all lists together."""

SegmentMetrics = dict[str, dict[str, dict[str, float]]]
"""By ``history`` or ``item`` and the segment's label: ``targets``, their number, and ``ndcg@10`` and so on."""


@dataclass(frozen=True)
class Segments:
    """Targets (rows,) in parts: ``segment`` (rows,) int64 is the place of each one's among the ``labels``."""

    labels: tuple[str, ...]
    segment: npt.NDArray[np.int64]

    @classmethod
    def of(cls, bounds: Sequence[int], events: npt.NDArray[np.integer]) -> Segments:
        """By ``events`` (rows,), a number of each target; ``bounds`` ascend, and the first is the least number."""
        return cls(labels_of(bounds), np.searchsorted(np.asarray(bounds), events, side="right") - 1)

    def metrics(self, ranks: Ranks, cutoffs: Sequence[int]) -> dict[str, dict[str, float]]:
        """By label: the number of ``targets``, and where there are any `METRICS` of their ``ranks`` (of rows, from 1)
        at each k of ``cutoffs``. The means over segments, weighed by these numbers, are the metrics of all."""
        found: dict[str, dict[str, float]] = {}
        for place, label in enumerate(self.labels):
            own = ranks[self.segment == place]
            found[label] = {"targets": len(own)}
            if len(own):
                found[label] |= {f"{name}@{k}": RANK_METRICS[name](own, k) for k in cutoffs for name in METRICS}
        return found


def labels_of(bounds: Sequence[int]) -> tuple[str, ...]:
    """``("0", "1-5", "6+")`` of the bounds 0, 1 and 6."""
    ends = [first if first == after - 1 else f"{first}-{after - 1}" for first, after in pairwise(bounds)]
    return (*map(str, ends), f"{bounds[-1]}+")


def check_by(by: Sequence[str]) -> tuple[str, ...]:
    """The names of ``by``; raises ``ConfigError`` for others than those of `BOUNDS` and for one that comes twice."""
    if isinstance(by, str) or not all(name in BOUNDS for name in by) or len(set(by)) < len(by):
        raise ConfigError(f"by: expected {HISTORY}, {ITEM} or both, each once, got {by!r}")
    return tuple(by)


def segment_metrics(
    ranks: Ranks,
    events: Mapping[str, npt.NDArray[np.integer]],
    cutoffs: Sequence[int],
) -> SegmentMetrics:
    """`Segments.metrics` by each name of ``events``, whose arrays (rows,) have what `BOUNDS` are bounds of: of
    ``history`` the events of each target's history, of ``item`` the training events of each target."""
    return {name: Segments.of(BOUNDS[name], each).metrics(ranks, cutoffs) for name, each in events.items()}
