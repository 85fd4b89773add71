"""Normals on the GPU: repeats ``draws.normals.normal_places`` bit for bit."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .permutation import load_seed, murmur_finalise, stream64

DOMAIN_NORMALS = tl.constexpr(4)
DROPPED_BITS = tl.constexpr(9)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def normal_places_kernel(p_seed, p_places, first_row, num_columns, total, BLOCK: tl.constexpr):
    """k of rows ``first_row`` .. and ``num_columns`` columns, row-major."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = (first_row + i // num_columns).to(tl.uint64)
    column = (i % num_columns).to(tl.uint32)
    base = stream64(load_seed(p_seed), tl.full((), DOMAIN_NORMALS, tl.uint64))
    key = stream64(base, row)
    word = murmur_finalise(column ^ (key >> 32).to(tl.uint32))
    word = murmur_finalise(word + (key & 0xFFFFFFFF).to(tl.uint32))
    tl.store(p_places + i, (word >> DROPPED_BITS).to(tl.int32), mask=i < total)
