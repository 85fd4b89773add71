"""The vectors nearest to centres, found by kernels, are those that a sort of all products gives; in both frameworks."""

from __future__ import annotations

import cce_minus.jax_impl.loss.buckets as jax_buckets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.kernels.launch.nearest import launch_nearest
from cce_minus.kernels.negatives.buckets import Buckets
from cce_minus.kernels.plan import nearest
from cce_minus.kernels.plan.nearest import LEAST_BLOCK, MOST_BLOCK, Nearest, plan_nearest
from cce_minus.torch_impl.loss import buckets

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# centres, vectors, width, wanted: all products at once; by blocks; by tiles of blocks; from sections of each
CASES = {
    "at once": (5, 700, 16, 3),
    "blocks": (70, 1031, 50, 8),
    "tiles": (3, 4100, 100, 1),
    "sections": (2, 5031, 20, 9),
}
SELECTED_FROM = {"at once": 1024, "blocks": 512, "tiles": 512, "sections": 64}


def arrays(case: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres, vectors, which count, and the wanted places of all, then of those that count."""
    num_centres, num_vectors, dim, size = case
    rng = np.random.default_rng(num_vectors)
    centres, vectors = (rng.standard_normal((n, dim)).astype(np.float32) for n in (num_centres, num_vectors))
    counted = rng.random(num_vectors) < 0.3
    products = centres.astype(np.float64) @ vectors.T.astype(np.float64)
    both = np.stack([products, np.where(counted, products, -np.inf)])
    return centres, vectors, counted, np.sort(np.argsort(-both, axis=2)[:, :, :size], 2)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int, int]:
    """A case, with limits that lead to its way of finding the nearest."""
    monkeypatch.setattr(nearest, "MOST_SELECTED_FROM", SELECTED_FROM[request.param])
    monkeypatch.setattr(nearest, "FEW_BLOCKS", 10**9 if request.param == "blocks" else 32)
    case = CASES[request.param]
    plan = plan_nearest(case[0], case[1], case[3])
    assert plan is not None
    assert (plan.block == 0) == (request.param == "at once")
    assert (plan.block > 0 and plan.has_tiles) == (request.param in ("tiles", "sections"))
    assert (max(map(nearest.sections, plan.selections)) > 1) == (request.param == "sections")
    return case


def test_torch(case: tuple[int, int, int, int]):
    centres, vectors, counted, want = arrays(case)
    c, v, all_counted = (torch.from_numpy(array).to(DEVICE) for array in (centres, vectors, counted))
    for which, of_counted in enumerate((None, all_counted)):
        for impl in ("triton", "reference"):
            found = buckets._nearest(c, v, torch.float32, case[3], Buckets(case[0], 1, case[3]), of_counted, impl)
            np.testing.assert_array_equal(found.cpu().numpy(), want[which])


@pytest.mark.parametrize("impl", ["reference", "triton", "auto"])
def test_jax(case: tuple[int, int, int, int], impl: str):
    centres, vectors, counted, want = arrays(case)

    def nearest(centres, vectors, counted):
        return jax_buckets._nearest(
            centres, vectors, jnp.dtype("float32"), case[3], Buckets(case[0], 1, case[3]), counted, impl
        )

    np.testing.assert_array_equal(jax.jit(nearest)(centres, vectors, None), want[0])
    np.testing.assert_array_equal(jax.jit(nearest)(centres, vectors, counted), want[1])
    if impl != "reference":
        mapped = jax.vmap(nearest, (0, None, None))(np.stack([centres, -centres]), vectors, counted)
        np.testing.assert_array_equal(mapped[0], want[1])


@pytest.mark.parametrize("most", [512, nearest.MOST_SELECTED_FROM])
def test_fewer_that_count_than_are_wanted(monkeypatch: pytest.MonkeyPatch, most: int):
    """The last of 897 vectors alone counts: the others are any, but vectors."""
    monkeypatch.setattr(nearest, "MOST_SELECTED_FROM", most)
    centres, vectors = np.ones((2, 16), np.float32), np.ones((897, 16), np.float32)
    counted = np.arange(897) == 896
    found = buckets.find_nearest(*(torch.from_numpy(array).to(DEVICE) for array in (centres, vectors, counted)), 7)
    plan = plan_nearest(2, 897, 7)
    searched = {"centres": centres, "vectors": vectors, "counted": counted}
    in_jax = jax_buckets._find_nearest(plan, searched)  # type: ignore
    for places in (found.cpu().numpy(), np.asarray(in_jax)):
        assert (places[:, -1] == 896).all()
        assert places.max() == 896
        assert (np.diff(places) > 0).all()


@pytest.mark.parametrize("size", [1, 3, 7, 12])
def test_selection_takes_the_first_of_equal_values(size: int):
    values = np.array([[0.0, 2, 2, -np.inf, 2, -1, np.inf, 2, -0.5, -np.inf, 2, 1e-40], [-3] * 12], np.float32)
    ins = {"values": torch.from_numpy(values).to(DEVICE)}
    outs = {"places": torch.full((2, size), -7, dtype=torch.int32, device=DEVICE)}
    launch_nearest(outs, ins, Nearest(2, 12, size, 0))
    want = np.sort(np.argsort(-values, axis=1, kind="stable")[:, :size], 1)
    np.testing.assert_array_equal(outs["places"].cpu().numpy(), want)


def test_plans():
    assert plan_nearest(362, 10**6, 256) == Nearest(362, 10**6, 256, LEAST_BLOCK)
    assert plan_nearest(362, 32768, 362) == Nearest(362, 32768, 362, 0)
    assert plan_nearest(362, 40000, 900) is None, "most of the vectors would be in the chosen blocks"
    large = plan_nearest(1000, 10**7, 256)
    assert large is not None
    assert large.block == MOST_BLOCK, "maxima in memory are bounded"
    assert not large.has_tiles
