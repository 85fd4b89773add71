"""Kernels that find the distinct rows which sorted ids name, and describe the draws among them."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .search import lower_bound
from .tables import sum_counts

NO_KEY = tl.constexpr(2**31 - 1)  # of what names no row, behind every id


@triton.jit
def _load_keys(p_keys, i, num_keys):
    """(keys at ``i``, which of them are the first of their id)."""
    inside = i < num_keys
    key = tl.load(p_keys + i, mask=inside, other=NO_KEY)
    before = tl.load(p_keys + tl.maximum(i, 1) - 1, mask=inside, other=NO_KEY)
    return key, (key != NO_KEY) & ((i == 0) | (key != before))


@triton.jit(do_not_specialize=ROW_NUMBERS)
def count_ids_kernel(p_keys, p_counts, num_keys, BLOCK: tl.constexpr):
    """The ids whose first key is in each block of the sorted keys."""
    pid = tl.program_id(0)
    _, is_first = _load_keys(p_keys, pid * BLOCK + tl.arange(0, BLOCK), num_keys)
    tl.store(p_counts + pid, tl.sum(is_first.to(tl.int32)))


@triton.jit(do_not_specialize=ROW_NUMBERS)
def place_ids_kernel(
    p_keys, p_order, p_given, p_counts, p_ids, p_places, p_count, num_keys, num_places, key_programs,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The ids in order, with the last again behind them, and where each given one is among them; what names no row
    stays as it is."""
    pid = tl.program_id(0)
    total = sum_counts(p_counts, key_programs, BLOCK)
    if pid < key_programs:
        i = pid * BLOCK + tl.arange(0, BLOCK)
        key, is_first = _load_keys(p_keys, i, num_keys)
        place = sum_counts(p_counts, pid, BLOCK) + tl.cumsum(is_first.to(tl.int32), 0) - 1
        tl.store(p_ids + place, key, mask=is_first & (place < num_places))
        at = tl.load(p_order + i, mask=i < num_keys, other=0)
        given = tl.load(p_given + at, mask=i < num_keys, other=-1)
        tl.store(p_places + at, tl.where(given >= 0, place, given), mask=i < num_keys)
        if pid == 0:
            tl.store(p_count, tl.minimum(total, num_places))
    else:
        place = (pid - key_programs) * BLOCK + tl.arange(0, BLOCK)
        none = tl.zeros((1,), tl.int32)
        end = tl.sum(lower_bound(p_keys, none, none + num_keys, none + NO_KEY))
        last = tl.load(p_keys + tl.maximum(end, 1) - 1, mask=end > 0, other=0)
        tl.store(p_ids + place, place * 0 + last, mask=(place >= total) & (place < num_places))


@triton.jit(do_not_specialize=ROW_NUMBERS)
def start_draws_kernel(p_drawn, p_drawn_at, num_drawn, num_places, BLOCK: tl.constexpr):
    """Every row as one that nobody drew."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(p_drawn + num_drawn + row, row, mask=row < num_places)
    tl.store(p_drawn_at + row, -1, mask=row < num_places)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def place_draws_kernel(p_places, p_drawn, p_drawn_at, num_drawn, BLOCK: tl.constexpr):
    """The rows of the drawn items, which come once each, and by which place each row is drawn."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(p_places + i, mask=i < num_drawn, other=-1)
    tl.store(p_drawn + i, row, mask=i < num_drawn)
    tl.store(p_drawn_at + row, i, mask=row >= 0)
    tl.store(p_drawn + num_drawn + row, -1, mask=row >= 0)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def place_targets_kernel(
    p_target, p_places, p_drawn_at, p_target_places, p_positions, num_rows, num_drawn, num_places, num_items,
    ignore_index, IGNORED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each target's row, and where it is drawn, or behind all draws its row's own place."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_n = n < num_rows
    target = tl.load(p_target + n, mask=m_n, other=0).to(tl.int64)
    is_item = m_n & (target != ignore_index) & (target >= 0) & (target < num_items)
    row = tl.load(p_places + num_drawn + n, mask=is_item, other=0)
    at = tl.load(p_drawn_at + row, mask=is_item, other=-1)
    other = tl.where(target == ignore_index, IGNORED, num_places)
    tl.store(p_target_places + n, tl.where(is_item, row, other).to(tl.int32), mask=m_n)
    position = tl.where(at >= 0, at, num_drawn + row)
    tl.store(p_positions + n, tl.where(is_item, position, NO_KEY), mask=m_n)
