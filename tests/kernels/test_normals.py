"""Normals: their moments, independence over seeds, rows and columns, and one implementation for every array library."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl.loss import buckets as jax_buckets
from cce_minus.kernels.draws import permutation as pm
from cce_minus.kernels.draws.normals import normal_places, normals_of_places
from cce_minus.torch_impl.loss import buckets as torch_buckets
from scipy import stats
from scipy.special import erfinv

from tests.loss import scalable

SIGNIFICANCE = 1e-4  # of a two-sided test; seeds are fixed, so that a right implementation passes for good
ROWS, COLUMNS = 700, 64
SEEDS = (0, 1, 7, 2**32 - 1, 2**63 + 12345)


def normals(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    words = tuple(pm.NUMPY.u32(word) for word in pm.seed_words(seed))
    places = normal_places(pm.NUMPY, words, np.arange(rows), np.arange(columns))  # type: ignore[arg-type]
    assert places.max() < 2**23
    return normals_of_places(places.astype(np.float64), erfinv)


@pytest.mark.parametrize("seed", SEEDS)
def test_they_are_the_contracts(seed: int):
    np.testing.assert_allclose(normals(seed), scalable.normals(seed, ROWS, COLUMNS), rtol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
def test_frameworks_agree(seed: int):
    high, low = pm.seed_words(seed)
    words = np.array([low, high], np.uint32).view(np.int32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first, want = 13, normals(seed)[13:]
    ours = {
        impl: torch_buckets.normals(torch.tensor(words, device=device), first, ROWS - first, COLUMNS, impl)
        for impl in ("reference", "triton")
    }
    assert torch.equal(ours["reference"], ours["triton"])
    jaxs = jax_buckets.normals(jnp.asarray(words), first, ROWS - first, COLUMNS)
    for got in (ours["reference"].cpu().numpy(), np.asarray(jaxs)):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_ends_are_finite_and_symmetric():
    ends = normals_of_places(np.array([0, 2**23 - 1], np.float32), erfinv)
    assert ends[0] == -ends[1]
    assert 5.2 < ends[1] < 5.4
    for erf_inverse, array in ((torch.erfinv, torch.tensor), (jax_buckets.jax.lax.erf_inv, jnp.array)):
        np.testing.assert_allclose(normals_of_places(array([0.0, 2.0**23 - 1]), erf_inverse), ends, rtol=1e-5)


def p_value(correlations: np.ndarray, samples: int) -> float:
    """Of correlations of independent normals, whose squares times ``samples`` add up to a chi-square."""
    return float(stats.chi2.sf((correlations**2).sum() * samples, correlations.size))


def assert_plausible(p: float) -> None:
    assert SIGNIFICANCE / 2 < p < 1 - SIGNIFICANCE / 2, p


@pytest.mark.parametrize("seed", SEEDS)
def test_moments_and_independence(seed: int):
    x = normals(seed)
    assert_plausible(float(stats.kstest(x.ravel(), "norm").pvalue))
    assert_plausible(float(stats.norm.sf(x.mean() * x.size**0.5)))
    assert_plausible(float(stats.chi2.sf((x**2).sum(), x.size)))
    for each in (x, x.T):  # columns, then rows
        correlation = np.corrcoef(each, rowvar=False)[np.triu_indices(each.shape[1], 1)]
        assert abs((correlation**2).mean() * len(each) - 1) < 0.1
    for shifted in (x[1:] * x[:-1], x[:, 1:] * x[:, :-1]):
        assert_plausible(float(stats.norm.sf(shifted.sum() / shifted.size**0.5)))


def test_independence_over_sequential_seeds():
    """Also over a module's seeds, which are a multiple of splitmix64's increment apart."""
    for step in (1, 0x9E3779B97F4A7C15, 2**32):
        x = np.stack([normals(3 + step * number, 40, 50) for number in range(60)]).reshape(60, -1)
        assert np.unique(x).size > 0.98 * x.size, "only by chance twice"
        correlation = np.corrcoef(x)[np.triu_indices(60, 1)]
        assert_plausible(p_value(correlation, x.shape[1]))
        for row in range(1, 3):  # nor is a row of one seed another row of the next one
            a, b = x[:-1, : -50 * row], x[1:, 50 * row :]
            assert_plausible(float(stats.norm.sf((a * b).sum() / a.size**0.5)))
