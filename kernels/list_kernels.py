"""Kernels of groups' lists of candidates: drawing them by slots, and adding up the item gradients of their partial sums."""

import triton
import triton.language as tl

from .permutation_kernels import permute
from .table_kernels import DOMAIN_BLOCKS, store_keys

FRESH = tl.constexpr(-1)


@triton.jit
def slot_keys_kernel(p_seed, p_keys, halves, total, BLOCK: tl.constexpr):
    """The keys of every (round, stratum)'s permutation of slots."""
    store_keys(p_seed, p_keys, tl.program_id(0) * BLOCK, tl.full((), DOMAIN_BLOCKS, tl.int32), halves, total, BLOCK)


@triton.jit
def slot_ids_kernel(
    p_keys, p_slot_ends, p_ids, num_items, total, negatives, block, strata, width, groups_per_round, shift, b,
    HALVES: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The item of each (group, place) of the lists: the one that owns the drawn slot; see ``slots.py``."""
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
def is_sorted_in(p_sorted, number, wanted, STEPS: tl.constexpr):
    """Whether each of ``wanted`` occurs in a sorted array, by bisection."""
    low = wanted * 0
    high = low + number
    for _ in range(STEPS):
        open_ = low < high
        middle = low + (high - low) // 2
        key = tl.load(p_sorted + middle, mask=open_, other=0)
        low = tl.where(open_ & (key < wanted), middle + 1, low)
        high = tl.where(open_ & (key >= wanted), middle, high)
    return tl.load(p_sorted + low, mask=low < number, other=-1) == wanted


@triton.jit
def find_parts_kernel(
    p_sorted_keys, p_sorted_draws, p_target_keys, p_part_of_draw, p_is_summed, num_draws, num_rows, num_items, draws_per_pass, passes,
    LOOKS_UP: tl.constexpr, STEPS: tl.constexpr, TARGET_STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Where the gradient of each place of the flattened lists goes: FRESH, to the item's gradient, where the item is drawn there only and is
    no target (none where not LOOKS_UP), else to the partial sums' row of its rank among the sorted draws of its pass.

    Also stores which sorted draws have such a row.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_i = i < num_draws
    key = tl.load(p_sorted_keys + i, mask=m_i, other=-1)
    before = tl.load(p_sorted_keys + i - 1, mask=m_i & (i > 0), other=-1)
    after = tl.load(p_sorted_keys + i + 1, mask=i + 1 < num_draws, other=-1)
    alone = (key != before) & (key != after)
    if LOOKS_UP:
        own_pass = i // draws_per_pass
        item = tl.where(alone & m_i, key - own_pass * (num_items + 1), 0)
        others = is_sorted_in(p_target_keys, num_rows, item, TARGET_STEPS)
        for number in range(passes):
            found = is_sorted_in(p_sorted_keys, num_draws, item + number * (num_items + 1), STEPS)
            others = others | (found & (own_pass != number))
        fresh = alone & (others == 0)
    else:
        fresh = i < 0
    draw = tl.load(p_sorted_draws + i, mask=m_i, other=0)
    tl.store(p_part_of_draw + draw, tl.where(fresh, FRESH, i % draws_per_pass), mask=m_i)
    tl.store(p_is_summed + i, tl.where(fresh, 0, 1), mask=m_i)


@triton.jit
def list_sums_kernel(
    p_sorted_keys, p_part_grad, p_part_bias, p_sums, dim: tl.constexpr,
    HAS_BIAS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum of the partial gradients, and of the bias's behind them, of each chunk of sorted draws that are of one item."""
    chunk, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    if tl.load(p_sorted_keys + chunk * CHUNK) == tl.load(p_sorted_keys + (chunk + 1) * CHUNK - 1):
        d = own_d + tl.arange(0, BLOCK_D)
        parts = chunk * CHUNK + tl.arange(0, CHUNK)
        grads = tl.load(p_part_grad + parts.to(tl.int64)[:, None] * dim + d[None, :], mask=(d < dim)[None, :], other=0.0)
        p_sum = p_sums + chunk.to(tl.int64) * (dim + 1)
        tl.store(p_sum + d, tl.sum(grads, 0), mask=d < dim)
        if HAS_BIAS:
            if own_d == 0:
                tl.store(p_sum + dim, tl.sum(tl.load(p_part_bias + parts), 0))


@triton.jit
def add_list_grad_kernel(
    p_scale, p_sorted_keys, p_is_summed, p_part_grad, p_part_bias, p_sums, p_item_grad, p_bias_grad,
    num_draws, num_items, dim: tl.constexpr, first_key,
    HAS_BIAS: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, PART: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """PART sorted draws add up the partial gradients of each item, in order; the first draw of each adds the sum to its item's gradient.

    Of the last item, whose draws may go on, the following ones are walked too, CHUNKS chunks at a time where those were summed beforehand.
    """
    first, own_d = tl.program_id(0) * PART, tl.program_id(1) * BLOCK_D
    d = own_d + tl.arange(0, BLOCK_D)
    i = first + tl.arange(0, PART)
    m_i = i < num_draws
    key = tl.load(p_sorted_keys + i, mask=m_i, other=-1)
    before = tl.load(p_sorted_keys + i - 1, mask=m_i & (i > 0), other=-1)
    summed = m_i & (key - first_key < num_items) & (tl.load(p_is_summed + i, mask=m_i, other=0) > 0)
    heads = summed & (key != before)
    if tl.max(heads.to(tl.int32), 0) == 0:
        return
    item = tl.where(heads, key - first_key, 0).to(tl.int64)
    p_rows = p_item_grad + item[:, None] * dim + d[None, :]
    m_rows = heads[:, None] & (d < dim)[None, :]
    known = tl.load(p_rows, mask=m_rows, other=0.0).to(tl.float32)
    tile = tl.load(p_part_grad + i.to(tl.int64)[:, None] * dim + d[None, :], mask=summed[:, None] & (d < dim)[None, :], other=0.0)
    same = (key[:, None] == key[None, :]) & heads[:, None]
    grad = tl.dot(same.to(tl.float32), tile, input_precision=PRECISION)
    if HAS_BIAS:
        part_bias = tl.load(p_part_bias + i, mask=summed, other=0.0)
        bias_grad = tl.sum(tl.where(same, part_bias[None, :], 0.0), 1)

    end = tl.minimum(first + PART, num_draws)
    last_key = tl.load(p_sorted_keys + end - 1)
    last_before = tl.load(p_sorted_keys + tl.maximum(first, 1) - 1)
    goes_on = (tl.load(p_sorted_keys + tl.minimum(end, num_draws - 1)) == last_key) & (end < num_draws)
    goes_on = goes_on & ((last_key != last_before) | (first == 0)) & (last_key - first_key < num_items)
    if goes_on:
        rest = tl.zeros((BLOCK_D,), tl.float32)
        rest_bias = tl.zeros((), tl.float32)
        start = end
        more = 1
        while more == 1:
            chunk = start // CHUNK + tl.arange(0, CHUNKS)
            chunk_end = (start // CHUNK + 1) * CHUNK
            m_chunk = (start % CHUNK == 0) & ((chunk + 1) * CHUNK <= num_draws)
            m_chunk = m_chunk & (tl.load(p_sorted_keys + (chunk + 1) * CHUNK - 1, mask=m_chunk, other=-1) == last_key)
            whole = tl.sum(m_chunk.to(tl.int32), 0)
            if whole > 0:
                p_sum = p_sums + chunk.to(tl.int64)[:, None] * (dim + 1)
                rest += tl.sum(tl.load(p_sum + d[None, :], mask=m_chunk[:, None] & (d < dim)[None, :], other=0.0), 0)
                if HAS_BIAS:
                    rest_bias += tl.sum(tl.load(p_sums + chunk.to(tl.int64) * (dim + 1) + dim, mask=m_chunk, other=0.0), 0)
                start += whole * CHUNK
            else:
                j = start + tl.arange(0, PART)
                m_j = (j < chunk_end) & (j < num_draws)
                m_j = m_j & (tl.load(p_sorted_keys + j, mask=m_j, other=-1) == last_key)
                p_tile = p_part_grad + j.to(tl.int64)[:, None] * dim + d[None, :]
                rest += tl.sum(tl.load(p_tile, mask=m_j[:, None] & (d < dim)[None, :], other=0.0), 0)
                if HAS_BIAS:
                    rest_bias += tl.sum(tl.load(p_part_bias + j, mask=m_j, other=0.0), 0)
                start = tl.minimum(start + PART, chunk_end)
            following = tl.load(p_sorted_keys + tl.minimum(start, num_draws - 1))
            more = ((start < num_draws) & (following == last_key)).to(tl.int32)
        is_last = (heads & (key == last_key)).to(tl.float32)
        grad += is_last[:, None] * rest[None, :]
        if HAS_BIAS:
            bias_grad += is_last * rest_bias

    grad = grad * tl.load(p_scale) + known
    tl.store(p_rows, grad.to(p_item_grad.dtype.element_ty), mask=m_rows)
    if HAS_BIAS:
        m_bias = heads & (own_d + i * 0 == 0)
        bias_grad += tl.load(p_bias_grad + item, mask=m_bias, other=0.0).to(tl.float32)
        tl.store(p_bias_grad + item, bias_grad.to(p_bias_grad.dtype.element_ty), mask=m_bias)
