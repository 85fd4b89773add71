"""A stable sort of few keys in two launches, where a radix sort takes a dozen: tiles by counting, then merged by
searching all of them."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS

NO_KEY = tl.constexpr(2**31 - 1)  # of places behind the last key


@triton.jit
def _numbered(p_keys, i, num_keys):
    """Keys above their places in 64 bits, by which all differ and equal ones stay in order."""
    key = tl.load(p_keys + i, mask=i < num_keys, other=NO_KEY)
    return (key.to(tl.int64) << 32) | i.to(tl.int64)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def sort_tiles_kernel(p_positive_key, p_tiles, num_keys, TILE: tl.constexpr, PART: tl.constexpr):
    """Each tile of nonnegative keys in order, with their places."""
    start = tl.program_id(0) * TILE
    own = _numbered(p_positive_key, start + tl.arange(0, TILE), num_keys)
    rank = tl.zeros((TILE,), tl.int32)
    for first in range(0, TILE, PART):
        other = _numbered(p_positive_key, start + first + tl.arange(0, PART), num_keys)
        rank += tl.sum((other[None, :] < own[:, None]).to(tl.int32), 1)
    tl.store(p_tiles + start + rank, own)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def merge_tiles_kernel(
    p_tiles, p_sorted_keys, p_sorted_rows, num_keys, num_tiles,
    TILE: tl.constexpr, HALVES: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """All keys in order, and their places: a key's rank is how many of each tile of 2^HALVES keys are before it."""
    own = tl.load(p_tiles + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    rank = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, num_tiles, TOGETHER):
        tile = first + tl.arange(0, TOGETHER)[:, None]
        m_tile = tile < num_tiles
        before = tl.zeros((TOGETHER, BLOCK), tl.int32)
        for half in tl.static_range(HALVES):
            probe = tl.load(p_tiles + tile * TILE + before + (TILE >> (half + 1)) - 1, mask=m_tile, other=2**63 - 1)
            before += tl.where(probe < own[None, :], TILE >> (half + 1), 0)
        probe = tl.load(p_tiles + tile * TILE + before, mask=m_tile, other=2**63 - 1)
        rank += tl.sum(before + (probe < own[None, :]).to(tl.int32), 0)
    row = own.to(tl.int32)
    m_row = (own & 0xFFFFFFFF) < num_keys
    tl.store(p_sorted_keys + rank, (own >> 32).to(tl.int32), mask=m_row)
    tl.store(p_sorted_rows + rank, row, mask=m_row)
