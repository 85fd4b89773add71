"""Rows of a table by their ids: the kernel's and plain torch's."""

from __future__ import annotations

import pytest
import torch
from cce_minus.kernels import ArgumentTypeError
from cce_minus.torch_impl.tables.read import read_rows

from tests.tables.run import DEVICE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("items", "dim", "rows"), [(50, 64, 33), (9, 1, 40), (7, 50, 1), (5, 3000, 4), (5, 16, 0)])
def test_rows_are_those_of_the_table(items: int, dim: int, rows: int, dtype: torch.dtype):
    torch.manual_seed(0)
    table = torch.randn(items, dim, device=DEVICE).to(dtype)
    ids = torch.randint(items, (rows,), device=DEVICE, dtype=torch.int32)
    for impl in ("triton", "reference"):
        found = read_rows(table, ids, impl=impl)
        assert found.dtype == torch.float32
        assert torch.equal(found, table[ids.long()].float()), impl
        torch.library.opcheck(torch.ops.cce_minus.read_rows.default, (table, ids, impl == "reference"))


def test_tables_of_other_strides_and_dtypes_are_refused():
    ids, wide = torch.zeros(2, device=DEVICE, dtype=torch.int32), torch.ones(3, 20, device=DEVICE)
    for table in (wide[:, :10], wide.T, wide.half(), wide.double()):
        with pytest.raises(ArgumentTypeError, match="weight: expected a contiguous tensor of float32 or bfloat16"):
            read_rows(table, ids)


def test_what_is_no_row_is_nan():
    ids = torch.tensor([2, -1, 3, 2**31 - 1], device=DEVICE, dtype=torch.int32)
    found = read_rows(torch.ones(3, 20, device=DEVICE), ids, impl="triton")
    assert found.isnan().all(1).tolist() == [False, True, True, True]
