"""Losses on a working set's rows against the oracle, and bit for bit against the whole table's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import torch

from tests.cases import cases
from tests.inputs import Case
from tests.loss.expected import How, assert_right, expected
from tests.loss.run_jax import run_jax
from tests.loss.run_torch import run_torch
from tests.tables.working_sets import (
    FRAMEWORKS,
    IMPLS,
)

RUN = {"torch": run_torch, "jax": run_jax}
ON_ROWS = How(working_set=True)


def drawn_cases() -> tuple[Case, ...]:
    """The grouped cases, among enough items that a step draws at most half of them."""

    def draws(case: Case) -> int:
        drawn = max(case.pool, case.num_negatives * (2 if case.sampler == "mixed_weighted" else 1))
        return -(-case.num_rows // case.group_size) * drawn

    chosen = (case for case in cases() if case.mode == "grouped")
    return tuple(replace(case, num_items=max(case.num_items, 2 * draws(case) + 1)) for case in chosen)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", drawn_cases(), ids=str)
def test_losses_and_gradients(case: Case, framework: str, impl: str):
    want = replace(expected(case), how=ON_ROWS)
    got = RUN[framework](want, impl)
    assert_right(got, want)
    dense = RUN[framework](replace(want, how=How()), impl)
    # XLA fuses the two references differently on a GPU: the last bit
    tolerance = 3e-7 if framework == "jax" and jax.default_backend() == "gpu" else 0
    np.testing.assert_allclose(got.loss, dense.loss, rtol=tolerance)
    np.testing.assert_allclose(got.lse, dense.lse, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", drawn_cases(), ids=str)
def test_losses_and_gradients_on_a_gpu(case: Case, dtype: torch.dtype, framework: str):
    want = replace(expected(case, dtype), how=ON_ROWS)
    operands: tuple[Any, ...] = (want, "triton", "cuda") if framework == "torch" else (want, "triton")
    got = RUN[framework](*operands)
    assert_right(got, want)
    dense = RUN[framework](replace(want, how=How()), *operands[1:])
    np.testing.assert_array_equal(got.loss, dense.loss)
    np.testing.assert_array_equal(got.lse, dense.lse)
