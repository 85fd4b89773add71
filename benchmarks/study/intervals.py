"""Means and differences with confidence intervals, of 95% where nothing else is said, from Student's t."""

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
    """An estimate and the bounds of its interval, infinite where there are too few values for one."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, mean: float, error: float, freedom: float, confidence: float = CONFIDENCE) -> Interval:
        """``mean -+ t error``, t of so many degrees of freedom."""
        half = float(student.ppf((1 + confidence) / 2, freedom)) * error if freedom > 0 else math.inf
        return cls(mean, mean - half, mean + half)


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean of n values, with the standard error s / sqrt(n) and n - 1 degrees of freedom."""
    n = len(values)
    error = statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return Interval.of(statistics.fmean(values), error, n - 1, confidence)


def paired_ratio(rows: Sequence[Row], reference: Sequence[Row], confidence: float) -> Interval:
    """The mean of the test NDCG@10 of ``rows`` over that of ``reference`` from the same seed, of seeds that both have;
    NaN if there is none."""
    of_seed = {row["seed"]: float(row["test_ndcg@10"]) for row in reference}
    ratios = [float(row["test_ndcg@10"]) / of_seed[row["seed"]] for row in rows if row["seed"] in of_seed]
    return interval(ratios, confidence) if ratios else Interval(math.nan, -math.inf, math.inf)


def relative_difference(rows: Sequence[Row], reference: Sequence[Row]) -> Interval:
    """By how much the mean test NDCG@10 of ``rows`` differs from that of ``reference``, as a share of it: a / b - 1.

    The standard error is that of a ratio of independent means to first order, with the degrees of freedom of Welch and
    Satterthwaite. Runs of one seed share weights and batches, but where losses draw differently their differences
    spread hardly less than those of different seeds.
    """
    a, b = ([float(row["test_ndcg@10"]) for row in some] for some in (rows, reference))
    ratio = statistics.fmean(a) / statistics.fmean(b)
    if min(len(a), len(b)) < 2:
        return Interval(ratio - 1, -math.inf, math.inf)
    shares = [statistics.variance(a) / len(a), ratio**2 * statistics.variance(b) / len(b)]
    error = math.sqrt(sum(shares)) / statistics.fmean(b)
    spread = sum(share**2 / (len(some) - 1) for share, some in zip(shares, (a, b), strict=True))
    return Interval.of(ratio - 1, error, sum(shares) ** 2 / spread if spread else math.inf)
