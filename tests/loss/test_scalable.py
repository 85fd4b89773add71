"""Scalable cross-entropy (SCE): both frameworks, reference and kernels, against the formulas in float64."""

from __future__ import annotations

from typing import get_args

import jax
import numpy as np
import pytest
import torch

from tests.loss.run_scalable import run_jax, run_torch, torch_choice
from tests.loss.scalable import (
    CASES,
    Case,
    Mistake,
    assert_right,
    choose,
    formulas,
    make_inputs,
)

INTERPRETED = pytest.param("triton", marks=pytest.mark.interpreter)
FEW = tuple(
    case for case in CASES if case.name in ("mixed", "100_rows", "few_rows_count", "beyond_the_batch", "everything")
)


def check(result: dict[str, np.ndarray], case: Case, mistake: Mistake | None = None) -> None:
    truth, plain = formulas(case, choose(case), mistake=mistake)
    assert_right(result, truth, plain, torch.float32)


@pytest.mark.parametrize("impl", ["reference", INTERPRETED])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: Case, impl: str):
    check(run_torch(case, impl), case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_jax(case: Case):
    check(run_jax(case, "reference"), case)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", FEW, ids=str)
def test_jax_kernels_have_the_bits_of_torch(case: Case):
    ours, torchs = run_jax(case, "triton"), run_torch(case, "triton")
    check(ours, case)
    if case.reduction != "mean":  # a mean's sum is each framework's own
        for name in ("dinput", "dweight"):
            np.testing.assert_array_equal(ours[name], torchs[name], err_msg=name)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_frameworks_agree(case: Case):
    ours, torchs = run_jax(case, "reference"), run_torch(case, "reference")
    assert ours.keys() == torchs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, torchs[name], rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("mistake", get_args(Mistake))
def test_planted_errors_fail(mistake: Mistake):
    case = next(case for case in CASES if case.name == "everything")
    case = Case(**(vars(case) | {"reduction": "mean", "ignored": 50 if mistake == "ignored rows in buckets" else 15}))
    with pytest.raises(AssertionError, match="allowed"):
        check(run_torch(case, "reference"), case, mistake)
    check(run_torch(case, "reference"), case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision(case: Case, dtype: torch.dtype):
    """On the buckets that half-precision projections make."""
    chosen = torch_choice(case, dtype, "cpu")
    truth, plain = formulas(case, chosen, dtype)
    assert_right(run_torch(case, "reference", dtype), truth, plain, dtype)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_one_bucket_of_everything_is_cross_entropy(framework: str):
    case = Case("full", 40, 50, 1, 40, 50, ignored=9)
    inputs = make_inputs(case)
    leaves = [torch.tensor(array).double().requires_grad_() for array in (inputs.hidden, inputs.table)]
    loss = torch.nn.functional.cross_entropy(leaves[0] @ leaves[1].T, torch.tensor(inputs.target))
    loss.backward()
    result = (run_torch if framework == "torch" else run_jax)(case, "reference")
    for name, want in zip(("loss", "dinput", "dweight"), (loss, leaves[0].grad, leaves[1].grad), strict=True):
        np.testing.assert_allclose(result[name], want.detach().numpy(), rtol=1e-5, atol=1e-6)  # type: ignore


@pytest.mark.gpu
@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_on_gpu(case: Case, dtype: torch.dtype, impl: str):
    chosen = torch_choice(case, dtype, "cuda")
    truth, plain = formulas(case, chosen, dtype)
    assert_right(run_torch(case, impl, dtype, "cuda"), truth, plain, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_jax_on_gpu(case: Case):
    check(run_jax(case, "triton"), case)


@pytest.fixture(autouse=True, scope="module")
def _compile_fast():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not torch.cuda.is_available())
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()
