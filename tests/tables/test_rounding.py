"""Tables in bfloat16: rounded at random without bias, or to the nearest, and alike in every implementation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cce_minus.kernels.draws import permutation as pm
from cce_minus.kernels.draws.rounding import rounding_bits
from cce_minus.kernels.plan.row_update import RowRule
from scipy import stats

from tests.tables import oracle
from tests.tables.run import update

WAYS = list(itertools.product(("torch", "jax"), ("reference", "triton")))
SIGNIFICANCE = 1e-4  # of a two-sided test; seeds are fixed, so that a right implementation passes for good
ADAGRAD = RowRule("rowwise_adagrad")


def bits(seed: int, step: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    high, low = pm.seed_words(seed)
    return rounding_bits(pm.NUMPY, (pm.NUMPY.u32(high), pm.NUMPY.u32(low)), pm.NUMPY.u32(step), rows, columns)


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 12345])
def test_bits_are_the_contracts(seed: int):
    rows, columns = np.array([0, 1, 5, 2**31 - 2]), np.array([0, 1, 63, 300])
    expected = [[oracle.rounding_bits(seed, 12, int(r), int(c)) for c in columns] for r in rows]
    assert bits(seed, 12, rows, columns).tolist() == expected


def test_bits_are_uniform_and_independent_of_each_other():
    """Of 64 cells, 2^20 bits: a share that is off by 2% is found with a probability above 0.99."""
    steps = [bits(3, step, np.arange(256), np.arange(256)) for step in range(16)]
    counts = np.bincount(np.concatenate([each.ravel() for each in steps]) >> 10, minlength=64)
    assert stats.chisquare(counts).pvalue > SIGNIFICANCE
    first = steps[0].astype(np.float64)
    another_seed = bits(4, 0, np.arange(256), np.arange(256))
    for other in (steps[1], np.roll(steps[0], 1, 0), np.roll(steps[0], 1, 1), another_seed):
        result: Any = stats.pearsonr(first.ravel(), other.ravel().astype(np.float64))
        assert result.pvalue > SIGNIFICANCE


def moved(framework: str, impl: str, weight: np.ndarray, grad: np.ndarray, rate: float, step: int, seed: int | None):
    """The weights after a step of plain descent: Adagrad whose sum is 1 but for what no fp32 number tells."""
    table = {"weight": weight, "second": np.full(len(weight), 2.0**40)}
    ids = np.arange(len(weight))
    return update(framework, impl, table, ADAGRAD, ids, len(ids), grad, rate * 2.0**20, step, seed, dtype="bfloat16")[
        "weight"
    ]


@pytest.mark.parametrize(("framework", "impl"), WAYS)
def test_rounding_is_to_a_neighbour_and_by_the_bits(framework: str, impl: str):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((40, 24)).astype(np.float32).view(np.uint32) & 0xFFFF0000
    weight = weight.view(np.float32)
    grad = rng.standard_normal((40, 24)).astype(np.float32)
    exact = weight - np.float32(1e-3) * grad
    for seed in (None, 5):
        got = moved(framework, impl, weight, grad, 1e-3, 9, seed)
        assert not (got.view(np.uint32) & 0xFFFF).any()
        low = (exact.view(np.uint32) & 0xFFFF0000).view(np.float32)
        high = ((exact.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
        assert ((got == low) | (got == high)).all()
        part = (exact.view(np.uint32) & 0xFFFF).astype(np.int64)
        limit = 0x8000 if seed is None else 0x10000 - bits(5, 9, np.arange(40), np.arange(24)).astype(np.int64)
        # a move is good to some units of fp32 alone, and what stands so near its limit may go either way
        clear = np.abs(part - limit) > 8
        np.testing.assert_array_equal((got == high)[clear], (part > limit)[clear])
        assert clear.mean() > 0.99


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_rounding_at_random_has_no_bias(impl: str):
    """The mean over 64 steps of 4096 weights, from the exact one, in units of the last place: its standard error is
    0.5 / 512 at most, so that a bias of 0.005 is found with a probability above 0.99."""
    rng = np.random.default_rng(2)
    weight = np.full((64, 64), 1.0, np.float32)
    grad = rng.random((64, 64)).astype(np.float32)
    unit = 2.0**-8  # just below 1
    rate = float(np.float32(unit * 0.75))
    exact = 1.0 - rate * grad.astype(np.float64)
    errors = [(moved("torch", impl, weight, grad, rate, step, 11) - exact) / unit for step in range(1, 65)]
    mean, deviation = np.mean(errors), np.std(errors)
    assert abs(mean) < stats.norm.isf(SIGNIFICANCE / 2) * deviation / np.sqrt(np.size(errors))
    nearest = (moved("torch", impl, weight, grad, rate, 1, None) - exact) / unit
    assert abs(nearest.mean()) > 0.01  # which it has


@pytest.mark.parametrize(("framework", "impl"), WAYS)
@pytest.mark.parametrize("seed", [None, 3])
def test_numbers_that_are_not_finite_stay_so(framework: str, impl: str, seed: int | None):
    weight = np.ones((3, 16), np.float32)
    weight[0, 0], weight[1, 1], weight[2, 2] = np.nan, np.inf, -np.inf
    got = moved(framework, impl, weight, np.zeros((3, 16)), 0.1, 1, seed)
    np.testing.assert_array_equal(got, weight)
