"""Rows of a table in float32, by their ids; see ``plan/row_read.py``."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .row_update import load_weights


@triton.jit(do_not_specialize=ROW_NUMBERS)
def read_rows_kernel(
    p_weight, p_ids, p_rows, num_rows, num_items, dim: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr
):
    """ROWS of the ids; what is none of the table's is NaN."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.load(p_ids + i, mask=i < num_rows, other=0).to(tl.int64)
    known = (row >= 0) & (row < num_items)
    d = tl.arange(0, BLOCK_D)
    mask = (i < num_rows)[:, None] & (d < dim)[None, :]
    weight = load_weights(p_weight, row[:, None] * dim + d[None, :], mask & known[:, None])
    places = i.to(tl.int64)[:, None] * dim + d[None, :]
    tl.store(p_rows + places, tl.where(known[:, None], weight, float("nan")), mask=mask)
