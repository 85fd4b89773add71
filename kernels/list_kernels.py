"""Kernels of groups' lists of candidates: drawing them by slots, and adding up the item gradients of their partial sums."""

import triton
import triton.language as tl

from .permutation_kernels import permute
from .table_kernels import DOMAIN_BLOCKS, store_keys


@triton.jit
def slot_keys_kernel(p_seed, p_keys, halves, total, BLOCK: tl.constexpr):
    """The keys of every (round, stratum)'s permutation of slots."""
    store_keys(p_seed, p_keys, tl.program_id(0) * BLOCK, tl.full((), DOMAIN_BLOCKS, tl.int32), halves, total, BLOCK)


@triton.jit
def slot_ids_kernel(
    p_keys, p_slot_ends, p_ids, num_items, total, negatives, block, strata, width, groups_per_round, shift, b,
    HALVES: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The item of each (group, place) of the lists: the one that owns the drawn slot; see ``draws.SlotDraws``."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < total
    group = (i // negatives).to(tl.int32)
    column = (i % negatives).to(tl.int32)
    stratum = column // block
    p_round_keys = p_keys + (group // groups_per_round * strata + stratum) * HALVES
    p_round_keys = tl.where(inside, p_round_keys, p_keys)
    place = (group % groups_per_round) * block + column % block
    slot = stratum * width + permute(place, width, shift, b, p_round_keys, HALVES, False, False)
    low = tl.zeros((BLOCK,), tl.int32)
    high = low + (num_items - 1)
    for _ in range(STEPS):  # the first item whose slots end behind this one
        middle = low + (high - low) // 2
        behind = tl.load(p_slot_ends + middle) > slot
        high = tl.where(behind & (low < high), middle, high)
        low = tl.where(behind, low, tl.minimum(middle + 1, high))
    tl.store(p_ids + i, low, mask=inside)


@triton.jit
def part_of_draw(draw, negatives, first_column, num_columns):
    """The row of the partial gradients of a place in the flattened lists."""
    draw = draw.to(tl.int64)
    return draw // negatives * num_columns + draw % negatives - first_column


@triton.jit
def list_sums_kernel(
    p_sorted_keys, p_sorted_draws, p_part_grad, p_part_bias, p_sums, dim: tl.constexpr, negatives, first_column, num_columns,
    HAS_BIAS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum of the partial gradients, and of the bias's behind them, of each chunk of sorted draws that are of one item."""
    chunk, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    if tl.load(p_sorted_keys + chunk * CHUNK) == tl.load(p_sorted_keys + (chunk + 1) * CHUNK - 1):
        d = own_d + tl.arange(0, BLOCK_D)
        draws = tl.load(p_sorted_draws + chunk * CHUNK + tl.arange(0, CHUNK))
        parts = part_of_draw(draws, negatives, first_column, num_columns)
        grads = tl.load(p_part_grad + parts[:, None] * dim + d[None, :], mask=(d < dim)[None, :], other=0.0)
        p_sum = p_sums + chunk.to(tl.int64) * (dim + 1)
        tl.store(p_sum + d, tl.sum(grads, 0), mask=d < dim)
        if HAS_BIAS:
            if own_d == 0:
                tl.store(p_sum + dim, tl.sum(tl.load(p_part_bias + parts), 0))


@triton.jit
def add_list_grad_kernel(
    p_scale, p_sorted_keys, p_sorted_draws, p_part_grad, p_part_bias, p_sums, p_item_grad, p_bias_grad,
    num_draws, num_items, dim: tl.constexpr, first_key, negatives, first_column, num_columns,
    HAS_BIAS: tl.constexpr, CHUNK: tl.constexpr, PART: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The first sorted draw of each item adds all of the item's partial gradients, in order, to its gradient."""
    first, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    key = tl.load(p_sorted_keys + first)
    before = tl.load(p_sorted_keys + tl.maximum(first, 1) - 1)
    item = (key - first_key).to(tl.int64)
    if (item < num_items) & ((key != before) | (first == 0)):
        d = own_d + tl.arange(0, BLOCK_D)
        grad = tl.zeros((BLOCK_D,), tl.float32)
        bias_grad = tl.zeros((), tl.float32)
        start = first
        more = 1
        while more == 1:
            chunk_end = (start // CHUNK + 1) * CHUNK
            last = tl.load(p_sorted_keys + tl.minimum(chunk_end, num_draws) - 1)
            if (start % CHUNK == 0) & (last == key) & (chunk_end <= num_draws):
                p_sum = p_sums + (start // CHUNK).to(tl.int64) * (dim + 1)
                grad += tl.load(p_sum + d, mask=d < dim, other=0.0)
                if HAS_BIAS:
                    bias_grad += tl.load(p_sum + dim)
                start = chunk_end
            else:
                i = start + tl.arange(0, PART)
                m_i = (i < chunk_end) & (i < num_draws)
                m_i = m_i & (tl.load(p_sorted_keys + i, mask=m_i, other=-1) == key)
                draws = tl.load(p_sorted_draws + i, mask=m_i, other=first_column)
                parts = part_of_draw(draws, negatives, first_column, num_columns)
                p_tile = p_part_grad + parts[:, None] * dim + d[None, :]
                grad += tl.sum(tl.load(p_tile, mask=m_i[:, None] & (d < dim)[None, :], other=0.0), 0)
                if HAS_BIAS:
                    bias_grad += tl.sum(tl.load(p_part_bias + parts, mask=m_i, other=0.0), 0)
                start = tl.minimum(start + PART, chunk_end)
            following = tl.load(p_sorted_keys + tl.minimum(start, num_draws - 1))
            more = ((start < num_draws) & (following == key)).to(tl.int32)
        p_row = p_item_grad + item * dim + d
        grad = grad * tl.load(p_scale) + tl.load(p_row, mask=d < dim, other=0.0).to(tl.float32)
        tl.store(p_row, grad.to(p_item_grad.dtype.element_ty), mask=d < dim)
        if HAS_BIAS:
            if own_d == 0:
                bias_grad += tl.load(p_bias_grad + item).to(tl.float32)
                tl.store(p_bias_grad + item, bias_grad.to(p_bias_grad.dtype.element_ty))
