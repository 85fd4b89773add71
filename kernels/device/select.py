"""The places of the largest values of rows, exactly: the least of them is found by bisection, with a row's values in
registers."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS

NONE = tl.constexpr(-(2**31))  # the key of what is no value


@triton.jit
def ordered_keys(value):
    """Integers in the order of fp32 values; NaN lies above infinity, or below minus infinity, by its sign."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.maximum(bits ^ ((bits >> 31) & 0x7FFFFFFF), NONE + 1)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def select_kernel(
    p_values, p_counted, p_candidates, p_blocks, p_places, num_values, num_candidates, section, size, factor, block,
    num_vectors,
    HAS_COUNTED: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_BLOCKS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The ``size`` largest of the candidates of each (row, section of them), in their order; of equal ones the first.

    Rows have ``num_values`` values. Candidate i is value i, or HAS_CANDIDATES value factor * candidates[i // factor] +
    i % factor. Values that do not count are minus infinity. HAS_BLOCKS: a row's values are those of the vectors of
    ``blocks``, whose places are stored.
    """
    row, own_section = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = own_section * section + tl.arange(0, WIDTH)
    inside = i < tl.minimum((own_section + 1) * section, num_candidates)
    place = i
    if HAS_CANDIDATES:
        p_row = p_candidates + row * (num_candidates // factor)
        place = tl.load(p_row + i // factor, mask=inside, other=0) * factor + i % factor
    inside = inside & (place < num_values)
    value = tl.load(p_values + row * num_values + place, mask=inside, other=0.0)
    if HAS_COUNTED:
        counted = tl.load(p_counted + place, mask=inside, other=0).to(tl.int32) != 0
        value = tl.where(counted, value, float("-inf"))
    key = tl.where(inside, ordered_keys(value), NONE)
    # a key that ``size`` keys reach, or the largest that more do: bisection, mostly over long before all bits are known
    least = tl.min(tl.where(inside, key, 2147483647), 0).to(tl.int64)
    most = tl.max(key, 0).to(tl.int64)
    reached = tl.sum(inside.to(tl.int32), 0)
    while (least < most) & (reached != size):
        middle = least + (most - least + 1) // 2
        number = tl.sum((key >= middle.to(tl.int32)).to(tl.int32), 0)
        reached = tl.where(number >= size, number, reached)
        least = tl.where(number >= size, middle, least)
        most = tl.where(number >= size, most, middle - 1)
    above = key > least.to(tl.int32)
    equal = key == least.to(tl.int32)
    missing = size - tl.sum(above.to(tl.int32), 0)  # how many of the equal ones are taken
    counts = tl.cumsum(
        above.to(tl.int32) * 65536 + equal.to(tl.int32), 0
    )  # both in one scan: there are less than 2^15 above
    taken = above | (equal & ((counts & 65535) <= missing))
    rank = (counts >> 16) + tl.minimum(counts & 65535, missing) - 1
    if HAS_BLOCKS:
        own_block = tl.load(p_blocks + row * (num_values // block) + place // block, mask=taken & inside, other=0)
        place = tl.minimum(own_block * block + place % block, num_vectors - 1)
    tl.store(p_places + (row * tl.num_programs(1) + own_section) * size + rank, place, mask=taken)
