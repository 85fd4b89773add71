"""The vectors nearest to centres, found by blocks, are those that a sort of all products gives; in both frameworks."""

from __future__ import annotations

import cce_minus.jax_impl.buckets as jax_buckets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.kernels.buckets import LEAST_BLOCK, MOST_BLOCK, Buckets, block_size
from cce_minus.torch_impl import buckets

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [(5, 700, 16, 3), (70, 1031, 50, 8), (3, 4100, 100, 1)]  # centres, vectors, width, wanted


def arrays(case: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres, vectors, which count, and the wanted places of all, then of those that count."""
    num_centres, num_vectors, dim, size = case
    rng = np.random.default_rng(num_vectors)
    centres, vectors = (rng.standard_normal((n, dim)).astype(np.float32) for n in (num_centres, num_vectors))
    counted = rng.random(num_vectors) < 0.3
    products = centres.astype(np.float64) @ vectors.T.astype(np.float64)
    both = np.stack([products, np.where(counted, products, -np.inf)])
    return centres, vectors, counted, np.sort(np.argsort(-both, axis=2)[:, :, :size], 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: tuple[int, int, int, int]):
    centres, vectors, counted, want = arrays(case)
    size, block = case[3], block_size(case[0], case[1], case[3])
    assert block == LEAST_BLOCK
    c, v, all_counted = (torch.from_numpy(array).to(DEVICE) for array in (centres, vectors, counted))
    for which, of_counted in enumerate((None, all_counted)):
        found = buckets._largest_by_blocks(c, v, size, block, of_counted)
        np.testing.assert_array_equal(found.cpu().numpy(), want[which])
        plain = buckets._nearest(c, v, torch.float32, size, Buckets(case[0], 1, size), of_counted, "reference")
        np.testing.assert_array_equal(plain.cpu().numpy(), want[which])


@pytest.mark.parametrize("impl", ["reference", "triton", "auto"])
def test_jax(impl: str):
    case = CASES[1]
    centres, vectors, counted, want = arrays(case)

    def nearest(centres, vectors, counted):
        return jax_buckets._nearest(centres, vectors, jnp.dtype("float32"), case[3], Buckets(case[0], 1, case[3]), counted, impl)

    np.testing.assert_array_equal(jax.jit(nearest)(centres, vectors, None), want[0])
    np.testing.assert_array_equal(jax.jit(nearest)(centres, vectors, counted), want[1])
    if impl != "reference":
        mapped = jax.vmap(nearest, (0, None, None))(np.stack([centres, -centres]), vectors, counted)
        np.testing.assert_array_equal(mapped[0], want[1])


def test_fewer_that_count_than_are_wanted():
    """The last of 897 vectors alone counts: the others are any, but vectors."""
    centres, vectors = np.ones((2, 16), np.float32), np.ones((897, 16), np.float32)
    counted = np.arange(897) == 896
    on_device = [torch.from_numpy(array).to(DEVICE) for array in (centres, vectors, counted)]
    found = buckets._largest_by_blocks(on_device[0], on_device[1], 7, LEAST_BLOCK, on_device[2]).cpu().numpy()
    in_jax = jax_buckets._largest_by_blocks(7, LEAST_BLOCK, {"centres": centres, "vectors": vectors, "counted": counted})  # type: ignore[dict-item]
    for places in (found, np.asarray(in_jax)):
        assert (places[:, -1] == 896).all()
        assert places.max() == 896


def test_block_sizes():
    assert block_size(362, 10**6, 256) == LEAST_BLOCK
    assert block_size(362, 32768, 362) is None, "half of the vectors would be chosen"
    assert block_size(1000, 10**7, 256) == MOST_BLOCK, "maxima in memory are bounded"
