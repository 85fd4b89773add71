"""What a training run minimises: a loss with its sampler and options, by the names that a command takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentValueError
from .buckets import Buckets
from .samplers import (
    AllItems,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    Sampler,
    UniformNegatives,
)

LOSSES = ("softmax", "bce", "gbce", "sce")


@dataclass(frozen=True)
class Objective:
    """A loss with all that stays the same from step to step: make one for a run.

    ``sampler`` draws its negatives, where it has no ``buckets`` instead. ``gbce_t`` is None but for gBCE.
    ``frequency_rate`` is None but for corrected negatives that are other rows' targets, whose frequencies are then
    followed through the training. ``logq_correction`` is the softmax loss's. JAX compiles a step once for equal
    objectives; samplers with probabilities of their own equal only themselves.
    """

    loss: str
    sampler: Sampler | None
    buckets: Buckets | None
    gbce_t: float | None
    frequency_rate: float | None
    logq_correction: bool
    impl: str


def make_objective(
    *,
    loss: str,
    negatives: str,
    item_counts: NDArray[np.integer],
    num_negatives: int,
    pool_size: int,
    popularity_power: float,
    frequency_rate: float,
    logq_correction: bool,
    group_size: int,
    shuffle_rows: bool,
    gbce_t: float,
    n_buckets: int,
    bucket_size_x: int,
    bucket_size_y: int,
    mix_x: bool,
    impl: str,
) -> Objective:
    """The objective of these names and numbers; ``item_counts`` (V,) is how often each item occurs in the training
    data.

    What the choice of ``loss`` and ``negatives`` does not use is ignored here. Raises ArgumentValueError for unknown
    names, and what the samplers raise.
    """
    if loss not in LOSSES:
        raise ArgumentValueError("loss", " or ".join(LOSSES), repr(loss))
    if loss == "sce":
        return Objective(loss, None, Buckets(n_buckets, bucket_size_x, bucket_size_y, mix_x), None, None, True, impl)
    groups = group_size, shuffle_rows
    sampler: Sampler
    match negatives:
        case "uniform":
            sampler = UniformNegatives(num_negatives, *groups)
        case "all":
            sampler = AllItems()
        case "popularity":
            sampler = PopularityNegatives(item_counts, num_negatives, popularity_power, *groups)
        case "log-uniform":
            # Weights by rank instead of LogUniformNegatives: item ids are not sorted by popularity.
            sampler = PopularityNegatives(_log_uniform_weights(item_counts), num_negatives, 1.0, *groups)
        case "in-batch":
            sampler = InBatchNegatives(*groups)
        case "mixed":
            sampler = MixedNegatives(UniformNegatives(num_negatives, *groups), InBatchNegatives(*groups))
        case "hard":
            sampler = HardNegatives(pool_size, num_negatives, *groups)
        case _:
            raise ArgumentValueError("negatives", "the name of a sampler", repr(negatives))
    rate = frequency_rate if logq_correction and negatives in ("in-batch", "mixed") else None
    return Objective(loss, sampler, None, gbce_t if loss == "gbce" else None, rate, logq_correction, impl)


def _log_uniform_weights(item_counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """``LogUniformNegatives``' weights for items in any order; of equally popular items the lower id comes first."""
    weights = np.empty(len(item_counts))
    weights[np.argsort(-item_counts, kind="stable")] = LogUniformNegatives(1).weights(len(item_counts))
    return weights
