"""Rows of a table in the host's memory, copied over the bus by few programs, and rows that others moved meanwhile; see
``plan/row_copy.py``. A bfloat16 table comes as 16-bit words."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .search import lower_bound


@triton.jit(do_not_specialize=["num_moved", *ROW_NUMBERS])
def copy_rows_kernel(
    p_weight, p_moved, p_count, p_news, p_ids, p_rows, num_moved, num_rows, num_items, dim: tl.constexpr,
    WRITES: tl.constexpr, READS: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """If ``WRITES``, the first ``count`` of ``p_news`` to the table's rows ``p_moved``; if ``READS``, the table's rows
    ``p_ids`` to ``p_rows``, where what is none of the table's is NaN. A row of both is read as it was or as it is."""
    d = tl.arange(0, BLOCK_D)
    last, count = num_rows, 0
    if WRITES:
        count = tl.minimum(tl.load(p_count), num_moved).to(tl.int32)
        last = tl.maximum(num_rows, count)
    for block in range(tl.program_id(0), tl.cdiv(last, ROWS), tl.num_programs(0)):
        i = block * ROWS + tl.arange(0, ROWS)
        in_rows = i.to(tl.int64)[:, None] * dim + d[None, :]
        if WRITES:
            row = tl.load(p_moved + i, mask=i < count, other=-1).to(tl.int64)
            mask = ((row >= 0) & (row < num_items))[:, None] & (d < dim)[None, :]
            tl.store(p_weight + row[:, None] * dim + d[None, :], tl.load(p_news + in_rows, mask=mask), mask=mask)
        if READS:
            row = tl.load(p_ids + i, mask=i < num_rows, other=-1).to(tl.int64)
            known = ((row >= 0) & (row < num_items))[:, None]
            word = tl.load(p_weight + row[:, None] * dim + d[None, :], mask=known & (d < dim)[None, :], other=0)
            if p_weight.dtype.element_ty == tl.int16:
                word = tl.where(known, word, 0x7FC0).to(tl.int16)
            else:
                word = tl.where(known, word, float("nan"))
            tl.store(p_rows + in_rows, word, mask=(i < num_rows)[:, None] & (d < dim)[None, :])


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
