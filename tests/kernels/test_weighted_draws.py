"""Draws with unequal probabilities: slots, frequencies, one implementation for every array library, errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cce_minus.kernels import ArgumentError, LogUniformNegatives, PopularityNegatives, negative_ids
from cce_minus.kernels.draws import permutation as pm
from cce_minus.kernels.draws.slots import SlotDraws, items_of_slots, share_slots
from cce_minus.kernels.negatives.samplers import sampler_of
from scipy import stats

SIGNIFICANCE = 1e-4  # of a two-sided test; seeds are fixed, so that a right implementation passes for good
COUNTS = np.array([900, 0, 300, 1, 50, 50, 7, 3, 120, 40, 2, 2, 15, 600, 33, 1])
SAMPLERS = [
    (PopularityNegatives(COUNTS, 12, alpha=1.0), COUNTS / COUNTS.sum(), "popularity"),
    (PopularityNegatives(COUNTS, 130), COUNTS**0.75 / (COUNTS**0.75).sum(), "popularity smoothed, two strata"),
    (PopularityNegatives(COUNTS, 5, alpha=0.0), (COUNTS > 0) / 15, "uniform over what occurs"),
    (LogUniformNegatives(7), np.log1p(1 / np.arange(1.0, 17)) / np.log(17), "log-uniform"),
]


@pytest.mark.parametrize(("sampler", "wanted", "why"), SAMPLERS, ids=[why for *_, why in SAMPLERS])
def test_draws_follow_the_probabilities(sampler: Any, wanted: np.ndarray, why: str):
    """Frequencies over sequential seeds, at all places and at single ones; probabilities are exact but for the rounding
    to slots."""
    num_items, seeds = len(wanted), 4000
    table = sampler.probabilities(num_items)
    q = np.exp(-table.log_weight.astype(np.float64)) / num_items
    np.testing.assert_allclose(q, wanted, rtol=1e-5)
    draws = SlotDraws(sampler.num_negatives)
    words = np.zeros((seeds, 1), np.uint32), np.arange(seeds, dtype=np.uint32)[:, None]
    items = items_of_slots(
        table.slot_ends, draws.draw(pm.NUMPY, words, np.zeros(seeds))
    )  # the first group of every seed
    for seed in (0, 1, seeds - 1):
        assert (items[seed] == negative_ids(sampler, num_rows=1, num_items=num_items, seed=seed)[0]).all()
    counts = np.bincount(items.ravel(), minlength=num_items)
    assert (counts[wanted == 0] == 0).all()
    occurs, expected = wanted > 0, items.size * wanted
    # a stratum's draws are of its items only, which makes counts vary less than independent draws would
    p = stats.chi2.sf(((counts - expected)[occurs] ** 2 / expected[occurs]).sum(), occurs.sum() - 1)
    assert p > SIGNIFICANCE, p
    if draws.strata == 1:
        assert p < 1 - SIGNIFICANCE, p
        for place in (0, draws.negatives - 1):
            single = np.bincount(items[:, place], minlength=num_items)
            assert stats.chisquare(single[occurs], seeds * wanted[occurs]).pvalue > SIGNIFICANCE


def test_wrong_probabilities_would_be_found():
    """The power of the test above: 4000 seeds of 12 draws tell an exponent of 0.97 from 1."""
    items = 4000 * 12
    off = COUNTS**0.97 / (COUNTS**0.97).sum()
    right, occurs = COUNTS / COUNTS.sum(), COUNTS > 0
    counts = np.random.default_rng(0).multinomial(items, off)
    assert stats.chisquare(counts[occurs], items * right[occurs]).pvalue < SIGNIFICANCE


@pytest.mark.parametrize("num_negatives", [1, 37, 64, 130, 134, 1024])
def test_a_group_takes_distinct_slots_and_every_stratum_alike(num_negatives: int):
    draws = SlotDraws(num_negatives)
    assert draws.strata * draws.block == num_negatives
    assert 2**28 - draws.strata < draws.slots <= 2**28
    slots = draws.draw(pm.NUMPY, (pm.NUMPY.u32(5), pm.NUMPY.u32(6)), np.arange(50)).astype(np.int64)
    assert len(np.unique(slots)) == slots.size, "one round's groups share no slot"
    assert (np.bincount(slots.ravel() // draws.width, minlength=draws.strata) == 50 * draws.block).all()


def test_shares_of_slots():
    assert share_slots(np.array([1.0, 1.0, 2.0]), 8).tolist() == [2, 2, 4]
    assert share_slots(np.array([1.0, 1.0, 1.0]), 8).tolist() == [3, 3, 2], "the rest goes to the largest remainders"
    assert share_slots(np.array([1.0, 0.0, 1e-12]), 8).tolist() == [7, 0, 1], (
        "a positive weight has a slot, no weight none"
    )
    many = share_slots(np.r_[1.0, np.full(1000, 1e-9), 2.0], 3000)
    assert many.sum() == 3000
    assert (many[1:-1] == 1).all()
    assert 1.9 < many[-1] / many[0] < 2.1


def test_rows_of_a_group_share_their_list():
    ids = negative_ids(LogUniformNegatives(8, 16), num_rows=100, num_items=50, seed=1)
    assert len(np.unique(ids, axis=0)) == 7
    assert negative_ids(LogUniformNegatives(8), num_rows=0, num_items=50, seed=1).shape == (0, 8)


@pytest.mark.parametrize(
    "sampler", [PopularityNegatives(COUNTS, 5, alpha=0.5), LogUniformNegatives(5, 32)], ids=lambda s: type(s).__name__
)
def test_samplers_survive_copies(sampler: Any):
    for copied in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert copied.text == sampler.text
        assert sampler_of(copied.text).text == sampler.text
        ids, wanted = (negative_ids(each, num_rows=40, num_items=16, seed=1) for each in (copied, sampler))
        assert (ids == wanted).all()
    assert (sampler == copy.copy(sampler)) == isinstance(sampler, LogUniformNegatives), (
        "counts are compared by identity"
    )


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: PopularityNegatives(COUNTS, 0), "num_negatives"),
        (lambda: PopularityNegatives(COUNTS, 2.5), "num_negatives"),  # type: ignore[arg-type]
        (lambda: PopularityNegatives(COUNTS, 2**20 + 1), "num_negatives"),
        (lambda: PopularityNegatives(COUNTS, 5, group_size=1), "group_size"),
        (lambda: PopularityNegatives(COUNTS, 5, alpha="1"), "alpha"),  # type: ignore[arg-type]
        (lambda: PopularityNegatives(COUNTS, 5, alpha=-0.5), "alpha"),
        (lambda: PopularityNegatives(COUNTS, 5, shuffle_rows=1), "shuffle_rows"),  # type: ignore[arg-type]
        (lambda: PopularityNegatives(-COUNTS, 5), "counts"),
        (lambda: PopularityNegatives(np.zeros(4), 5), "counts"),
        (lambda: PopularityNegatives(np.ones((4, 2)), 5), "counts"),
        (lambda: PopularityNegatives(["a"], 5), "counts"),
        (lambda: LogUniformNegatives(5, group_size=1), "group_size"),
        (lambda: negative_ids(PopularityNegatives(COUNTS, 5), num_rows=3, num_items=17, seed=0), "negatives"),
        (lambda: negative_ids(LogUniformNegatives(5), num_rows=3, num_items=2**27, seed=0), "linear_weight"),
    ],
)
def test_malformed_samplers_name_the_argument(make: Any, argument: str):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.argument == argument
