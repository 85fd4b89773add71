"""Corrected negatives estimate the partition sum, and the gradient of full softmax, whatever they are drawn by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.kernels import (
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
)
from cce_minus.torch_impl import linear_cross_entropy, sampled_linear_cross_entropy
from torch import Tensor

V, D, ROWS = 60, 8, 16
GROUPS, SEEDS = 32, 60  # every call has each row once in every group; a seed's mean over its groups is one sample
RNG = np.random.default_rng(3)
HIDDEN = torch.from_numpy(RNG.standard_normal((ROWS, D)).astype(np.float32)) * D**-0.5
TABLE = torch.from_numpy(RNG.standard_normal((V, D)).astype(np.float32))
TARGET = torch.arange(ROWS) % 8  # the items that are drawn most often: hits are frequent
COUNTS = np.floor(400 / np.arange(1, V + 1))
LOG_Q = torch.log(torch.from_numpy(COUNTS / COUNTS.sum())).float()
DRAWS = {
    "uniform": UniformNegatives(10, 16, shuffle_rows=False),
    "uniform, independent": UniformNegatives(10, 1),
    "popularity": PopularityNegatives(COUNTS, 16, group_size=16, shuffle_rows=False),
    "popularity, two strata": PopularityNegatives(COUNTS, 66, group_size=16, shuffle_rows=False),
    "log-uniform": LogUniformNegatives(16, 16, shuffle_rows=False),
    "explicit ids": None,
    "in-batch": InBatchNegatives(16, shuffle_rows=False),
    "uniform and in-batch": MixedNegatives(UniformNegatives(10, 16, False), InBatchNegatives(16, False)),
    "popularity and uniform": MixedNegatives(
        PopularityNegatives(COUNTS, 16, group_size=16, shuffle_rows=False), UniformNegatives(8, 16, False)
    ),
    "a whole pool": HardNegatives(10, 10, 16, shuffle_rows=False),
}


def batch(name: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(hidden, target, which rows count) of one call: every row once in every group, or where rows' targets are
    negatives each row first in a group of its own, with 15 rows whose targets come as often as items occur."""
    if "in-batch" not in name:
        return HIDDEN.repeat(GROUPS, 1), TARGET.repeat(GROUPS), torch.arange(GROUPS * ROWS)
    groups = GROUPS * ROWS
    others = torch.multinomial(LOG_Q.exp().expand(groups, V), 15, replacement=True, generator=generator)
    target = torch.cat([TARGET.repeat(GROUPS)[:, None], others], 1).flatten()
    return HIDDEN.repeat(GROUPS, 1).repeat_interleave(16, 0), target, torch.arange(groups) * 16


def partition_sums(name: str, corrected: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over seeds of sum_j exp(z_nj), from lse and loss: exp(lse) - exp(z_n0)."""
    sums = []
    for seed in range(SEEDS):
        negatives: Any = DRAWS[name]
        generator = torch.Generator().manual_seed(seed)
        hidden, target, probes = batch(name, generator)
        log_q = LOG_Q if corrected and "in-batch" in name else None
        if negatives is None:
            negatives = torch.multinomial(
                LOG_Q.exp().expand(GROUPS * ROWS, V), 24, replacement=True, generator=generator
            )
            log_q = LOG_Q if corrected else None
        loss, lse = sampled_linear_cross_entropy(
            hidden, TABLE, target, negatives, seed=seed, return_lse=True, reduction="none",
            log_q=log_q, logq_correction=corrected,
        )  # fmt: skip
        of_rows = torch.exp(lse.double()) * -torch.expm1(-loss.double())
        sums.append(of_rows[probes].view(GROUPS, ROWS).mean(0))
    found = torch.stack(sums).numpy()
    return found.mean(0), found.std(0, ddof=1) / SEEDS**0.5


def truth() -> np.ndarray:
    scores = (HIDDEN @ TABLE.T).double()
    scores[torch.arange(ROWS), TARGET] = -np.inf
    return torch.exp(scores).sum(1).numpy()


@pytest.mark.parametrize("name", DRAWS)
def test_partition_sum_is_unbiased(name: str):
    """Each of 16 rows within four standard errors, all of which are below 2% of the sum: 8% off would be found."""
    mean, error = partition_sums(name)
    assert (np.abs(mean - truth()) < 4 * error).all(), (mean - truth()) / error
    assert (error < 0.02 * truth()).all(), error / truth()


@pytest.mark.parametrize(
    "name", ["popularity", "log-uniform", "explicit ids", "in-batch", "uniform and in-batch", "a whole pool"]
)
def test_a_missing_correction_is_found(name: str):
    mean, error = partition_sums(name, corrected=False)
    assert (np.abs(mean - truth()) > 4 * error).all()


def gradient_bias(negatives: Any, draws: int) -> float:
    """Relative distance of the mean gradient over draws from that of full softmax."""

    def gradient(loss: Tensor, hidden: Tensor) -> Tensor:
        return torch.autograd.grad(loss, hidden)[0]

    hidden = HIDDEN.repeat(GROUPS, 1).requires_grad_()
    target = TARGET.repeat(GROUPS)
    full = gradient(linear_cross_entropy(hidden, TABLE, target, reduction="sum"), hidden)[:ROWS]
    total = torch.zeros_like(full)
    for seed in range(draws):
        grads = gradient(
            sampled_linear_cross_entropy(hidden, TABLE, target, negatives, seed=seed, reduction="sum"), hidden
        )
        total += grads.view(GROUPS, ROWS, D).mean(0)
    return float((total / draws - full).norm() / full.norm())


SAMPLERS = {
    "uniform": lambda k: UniformNegatives(k, 16, shuffle_rows=False),
    "popularity": lambda k: PopularityNegatives(COUNTS, k, group_size=16, shuffle_rows=False),
    "log-uniform": lambda k: LogUniformNegatives(k, 16, shuffle_rows=False),
    "mixed": lambda k: MixedNegatives(UniformNegatives(k // 2, 16, False), LogUniformNegatives(k // 2, 16, False)),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=list(SAMPLERS))
def test_the_gradients_bias_shrinks_with_more_negatives(sampler: Any):
    """The bias is of order 1 / K (of the logarithm of an unbiased sum): 4, 12 and 48 draws."""
    few, some, many = (gradient_bias(sampler(k), 60) for k in (4, 12, 48))
    assert many < 0.6 * some, (few, some, many)
    assert some < 0.6 * few, (few, some, many)
