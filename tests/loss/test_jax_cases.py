"""The named cases through JAX on the CPU: the reference, and the Triton kernels in the interpreter with the bits of PyTorch's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.cases import Case, cases
from tests.loss.expected import assert_right, expected
from tests.loss.run_jax import run_jax
from tests.loss.run_torch import run_torch

ONE_OR_TWO_A_MODE = (
    "grouped-ragged",
    "grouped-ignore_item",
    "grouped-few_blocks",
    "independent-dim_256",
    "independent-membership",
    "all-options",
    "shared_ids-empty_slots",
    "row_ids-empty_slots",
)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_reference(case: Case):
    want = expected(case)
    assert_right(run_jax(want, "reference"), want)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", [case for case in cases() if case.name in ONE_OR_TWO_A_MODE], ids=str)
def test_kernels(case: Case):
    want = expected(case)
    ours, torchs = run_jax(want, "triton"), run_torch(want, "triton")
    assert_right(ours, want)
    for name in ("lse", "dhidden", "dtable"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(torchs, name), err_msg=name)
    if case.has_bias:
        np.testing.assert_array_equal(ours.dbias, torchs.dbias)  # type: ignore[arg-type]


@pytest.fixture(autouse=True, scope="module")
def _drop_compiled():
    yield
    jax.clear_caches()
