"""The named cases through the Triton kernels on a GPU, in every input dtype."""

from __future__ import annotations

import pytest
import torch

from tests.cases import cases
from tests.inputs import Case
from tests.loss.expected import assert_right, expected
from tests.loss.run_torch import run_torch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels(case: Case, dtype: torch.dtype):
    want = expected(case, dtype)
    assert_right(run_torch(want, "triton", "cuda"), want)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_reference(case: Case):
    want = expected(case)
    assert_right(run_torch(want, "reference", "cuda"), want)
