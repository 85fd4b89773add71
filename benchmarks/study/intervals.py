"""Means and differences with 95% confidence intervals, from Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from .results import Row

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of ``count`` values and the bounds of its interval; both are infinite for a single value."""

    mean: float
    low: float
    high: float
    count: int


def interval(values: Sequence[float]) -> Interval:
    """The mean and its interval ``mean -+ t s / sqrt(n)``, t of n - 1 degrees of freedom."""
    mean = statistics.fmean(values)
    n = len(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def relative_difference(rows: Sequence[Row], reference: Sequence[Row], metric: str = "test_ndcg@10") -> Interval | None:
    """By how much ``rows`` differ from ``reference``, as a share of it: the mean of value / reference - 1 over the seeds that both
    have, which share weights, batches and dropout. None where they share none."""
    base = {row["seed"]: float(row[metric]) for row in reference}
    shared = [float(row[metric]) / base[row["seed"]] - 1 for row in rows if row["seed"] in base]
    return interval(shared) if shared else None
