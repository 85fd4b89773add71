"""Rows of a table in the host's memory, copied over the bus by few programs, and rows that others moved meanwhile; see
``plan/row_copy.py``. A bfloat16 table comes as 16-bit words."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .search import lower_bound


@triton.jit(do_not_specialize=ROW_NUMBERS)
def copy_rows_kernel(
    p_weight, p_ids, p_count, p_rows, num_rows, num_items, dim: tl.constexpr, WRITES: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The rows of all ids into ``p_rows``, where what is none of the table's is NaN; or, if ``WRITES``, the first
    ``count`` of them from there into the table."""
    d = tl.arange(0, BLOCK_D)
    last = tl.minimum(tl.load(p_count), num_rows).to(tl.int32) if WRITES else num_rows
    for block in range(tl.program_id(0), tl.cdiv(last, ROWS), tl.num_programs(0)):
        i = block * ROWS + tl.arange(0, ROWS)
        row = tl.load(p_ids + i, mask=i < last, other=0).to(tl.int64)
        known = (row >= 0) & (row < num_items)
        in_table = row[:, None] * dim + d[None, :]
        in_rows = i.to(tl.int64)[:, None] * dim + d[None, :]
        mask = (i < last)[:, None] & (d < dim)[None, :]
        if WRITES:
            mask = mask & known[:, None]
            tl.store(p_weight + in_table, tl.load(p_rows + in_rows, mask=mask, other=0), mask=mask)
        else:
            word = tl.load(p_weight + in_table, mask=mask & known[:, None], other=0)
            if p_weight.dtype.element_ty == tl.int16:
                word = tl.where(known[:, None], word, 0x7FC0).to(tl.int16)
            else:
                word = tl.where(known[:, None], word, float("nan"))
            tl.store(p_rows + in_rows, word, mask=mask)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def refresh_rows_kernel(
    p_ids, p_moved, p_count, p_news, p_rows, num_rows, num_moved, dim: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Takes those of ROWS ids that are among the first ``count`` of ``p_moved``, which ascend, from ``p_news``."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.load(p_ids + i, mask=i < num_rows, other=-1)
    first = tl.zeros((ROWS,), tl.int32)
    count = tl.minimum(tl.load(p_count), num_moved).to(tl.int32)
    place = lower_bound(p_moved, first, first + count, row)
    moved = (i < num_rows) & (place < count) & (row >= 0)
    moved = moved & (tl.load(p_moved + place, mask=moved, other=-1) == row)
    d = tl.arange(0, BLOCK_D)
    mask = moved[:, None] & (d < dim)[None, :]
    word = tl.load(p_news + place.to(tl.int64)[:, None] * dim + d[None, :], mask=mask)
    tl.store(p_rows + i.to(tl.int64)[:, None] * dim + d[None, :], word, mask=mask)
