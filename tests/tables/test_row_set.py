"""The distinct rows that ids name, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cce_minus.jax_impl.tables.row_set import row_set as jax_row_set
from cce_minus.kernels import ArgumentTypeError, ArgumentValueError
from cce_minus.torch_impl.tables.row_set import row_set as torch_row_set

from tests.tables.run import DEVICE, row_set

FRAMEWORKS = ("torch", "jax")
RNG = np.random.default_rng(0)
CASES = {
    "none": np.zeros(0, np.int32),
    "one": np.array([7]),
    "the same": np.full(5, 3),
    "distinct": RNG.permutation(100),
    "repeated": RNG.integers(0, 30, (13, 7)),
    "filled": np.where(RNG.random((9, 8)) < 0.3, -100, RNG.integers(0, 40, (9, 8))),
    "only filling": np.array([[-1, -100], [-1, -1]]),
    "zero": np.array([0, -1, 0]),
    "blocks": RNG.integers(-1, 1500, 3000),
    "large": np.array([2**31 - 2, 0, 2**31 - 3, 2**31 - 2]),
}


IMPLS = ("reference", pytest.param("triton", marks=pytest.mark.interpreter))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("bound", [0, 5], ids=["", "with room"])
@pytest.mark.parametrize("name", CASES)
def test_ids_are_distinct_ascending_and_found_again(framework: str, bound: int, name: str, impl: str):
    given = CASES[name].astype(np.int32)
    distinct = np.unique(given[given >= 0])
    most = max(len(distinct), 1) + bound if bound else None
    ids, places, count = row_set(framework, given, most, impl)
    assert count == len(distinct)
    assert len(ids) == (given.size if most is None else most)
    assert ids[:count].tolist() == distinct.tolist()
    assert set(ids[count:].tolist()) <= ({distinct[-1]} if count else {0})
    assert places.shape == given.shape
    np.testing.assert_array_equal(np.where(given >= 0, ids[np.maximum(places, 0)] if len(ids) else 0, places), given)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ids_beyond_the_bound_have_no_place(framework: str):
    given = np.array([4, 2, 9, 2], np.int32)
    if framework == "torch" and DEVICE == "cpu":
        with pytest.raises(ArgumentValueError, match="bound: expected at least 3, the number of distinct ids, got 2"):
            row_set("torch", given, 2)
        return
    ids, places, count = row_set(framework, given, 2)
    assert (ids.tolist(), places.tolist(), count) == ([2, 4], [1, 0, 2, 0], 2)


def test_ids_that_fit_no_int32_are_refused():
    with pytest.raises(ArgumentValueError, match="ids: expected ints below 2147483647, got 2147483647"):
        torch_row_set(torch.tensor([3, 2**31 - 1]))


@pytest.mark.parametrize("of_framework", [torch_row_set, jax_row_set])
def test_other_than_integers_are_refused(of_framework):
    with pytest.raises(ArgumentTypeError, match="ids"):
        of_framework([1, 2])
    with pytest.raises(ArgumentTypeError, match="ids"):
        of_framework(np.array([1.0]))
