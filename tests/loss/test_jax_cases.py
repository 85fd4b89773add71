"""The named cases through JAX on the CPU: the reference, and the Triton kernels in the interpreter with the bits of
PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.cases import cases
from tests.inputs import Case
from tests.loss.expected import assert_right, expected
from tests.loss.run_jax import run_jax
from tests.loss.run_torch import run_torch

pytestmark = pytest.mark.usefixtures("compiles_fast")

ONE_OR_TWO_A_MODE = (
    "grouped-ragged",
    "grouped-ignore_item",
    "grouped-few_blocks",
    "independent-dim_256",
    "independent-membership",
    "all-options",
    "shared_ids-empty_slots",
    "row_ids-empty_slots",
    "grouped-popularity_split",
    "grouped-in_batch",
    "grouped-mixed",
    "grouped-hard_options",
    "grouped-history_hard",
)


# cases of the kernels' tiles, splits, strata and tables, of which plain JAX has none
OF_KERNELS = (
    "grouped-few_blocks", "grouped-many_rounds", "grouped-group_128", "grouped-group_256", "grouped-dim_100",
    "grouped-dim_320", "grouped-popular", "grouped-dim_320_popular", "grouped-few_counted", "grouped-mid_visit",
    "independent-membership", "independent-strata", "independent-half", "independent-dim_256", "independent-popular",
    "all-few_counted", "shared_ids-few_counted", "row_ids-popular", "row_ids-repeated", "grouped-popularity_few_items",
    "grouped-popularity_split", "grouped-history_split", "independent-history_membership", "grouped-gone_split",
    "grouped-bce_split", "independent-bce_membership",
    "shared_ids-ragged", "row_ids-ragged",
)  # fmt: skip


def test_left_out_cases_exist():
    assert set(OF_KERNELS) < {case.name for case in cases()}


@pytest.mark.parametrize("case", [case for case in cases() if case.name not in OF_KERNELS], ids=str)
def test_reference(case: Case):
    want = expected(case)
    assert_right(run_jax(want, "reference"), want)


def assert_kernels_right_with_the_bits_of_torch(case: Case, dtype: torch.dtype, device: str) -> None:
    want = expected(case, dtype)
    ours, torchs = run_jax(want, "triton"), run_torch(want, "triton", device)
    assert_right(ours, want)
    if case.sampler in ("mixed", "mixed_weighted"):  # each framework adds up the mixture's probabilities itself
        return
    # reductions over rows (a mean, the scale's gradient) are each framework's own
    fields = ["lse", "dhidden", "dtable"] if case.reduction != "mean" else ["lse"]
    fields += ["loss"] if case.reduction == "none" else []
    fields += ["dbias"] if case.has_bias and case.reduction != "mean" else []
    for name in fields:
        np.testing.assert_array_equal(getattr(ours, name), getattr(torchs, name), err_msg=name)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", [case for case in cases() if case.name in ONE_OR_TWO_A_MODE], ids=str)
def test_kernels(case: Case):
    assert_kernels_right_with_the_bits_of_torch(case, torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_on_gpu(case: Case, dtype: torch.dtype):
    assert_kernels_right_with_the_bits_of_torch(case, dtype, "cuda")
