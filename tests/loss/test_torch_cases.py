"""The named cases through PyTorch on the CPU: the reference, and the Triton kernels in the interpreter."""

from __future__ import annotations

import pytest
import torch

from tests.cases import cases, far_cases
from tests.inputs import Case
from tests.loss.expected import assert_right, expected
from tests.loss.run_torch import run_torch


@pytest.mark.parametrize("case", cases(), ids=str)
def test_reference(case: Case):
    want = expected(case)
    assert_right(run_torch(want, "reference"), want)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels(case: Case):
    want = expected(case)
    assert_right(run_torch(want, "triton"), want)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", far_cases(), ids=str)
def test_kernels_in_float16(case: Case):
    want = expected(case, torch.float16)
    assert_right(run_torch(want, "triton"), want)
