"""Gradient of the item table from rows that an item looks up: a few items a program, so that matrix products serve them all.

A product has 16 rows at least. Here they are ITEMS items times the parts that a score's gradient is cut into, which together
keep fp32 accuracy though the products take half-precision operands. fp32 rows are multiplied and added without products.
"""

import triton
import triton.language as tl

from .gather_kernels import ROUNDS, ROW_IDS
from .permutation_kernels import permute
from .score_kernels import LOWEST_PEAK, cap, exp_from, power_of_two_scale
from .tile_kernels import add_other_chunks, load_rows

PARTS = tl.constexpr(2)  # partial sums of split tiles, one row a candidate position
SORTED_PARTS = tl.constexpr(3)  # the same of explicit shared ids: positions sorted by item


@triton.jit
def add_split_product(accumulator, a, is_own, part, b):
    """accumulator (16, D) + sum of a_m b_m (M, D) in the rows that ``is_own`` (16, M) gives, ``a`` cut into parts by ``part`` (16,)."""
    power = 1.0
    if b.dtype == tl.float16:  # a probability times 1 / N is below its range
        power = power_of_two_scale(tl.max(tl.abs(a), 0))
        a *= power
    high = a.to(b.dtype)
    rest = a - high.to(tl.float32)
    middle = rest.to(b.dtype)
    low = (rest - middle.to(tl.float32)).to(b.dtype)
    zero = tl.zeros_like(high)
    cut = tl.where((part == 0)[:, None], high[None, :], tl.where((part == 1)[:, None], middle[None, :], low[None, :]))
    cut = tl.where(is_own & (part < 3)[:, None], cut, zero[None, :])
    if b.dtype == tl.float16:
        return accumulator + tl.dot(cut, b) / power
    return tl.dot(cut, b, accumulator)


@triton.jit
def gather_item_grad_kernel(
    p_hidden, p_item, p_bias, p_scale, p_rows, p_count, p_keys,
    p_slot_peak, p_slot_weight, p_slot_target, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_sorted_draws, p_draw_starts, p_item_grad, p_bias_grad,
    num_rows, num_items, dim: tl.constexpr, rows_per_round, rounds, softcap, item_shift, item_b,
    NEGATIVES: tl.constexpr, SOURCE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, REMOVE_HITS: tl.constexpr,
    ITEM_HALVES: tl.constexpr, ITEMS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
    CHUNK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """ITEMS items gather the rows that drew them and the rows whose target they are, BLOCK_M at a time, and write their gradients once."""
    first, own_chunk = tl.program_id(0) * ITEMS, tl.program_id(1)
    own_d = own_chunk * BLOCK_D
    d = own_d + tl.arange(0, BLOCK_D)
    scale = tl.load(p_scale)
    count = tl.load(p_count)
    SPLITS: tl.constexpr = 16 // ITEMS
    EACH: tl.constexpr = BLOCK_M // ITEMS
    place = tl.arange(0, 16)
    part = place % SPLITS
    item = first + place // SPLITS
    m_item = item < num_items
    EXACT: tl.constexpr = p_hidden.dtype.element_ty == tl.float32
    if EXACT:
        place = tl.arange(0, ITEMS)
        part = place * 0
        item = first + place
        m_item = item < num_items
    else:
        table_row = load_rows(p_item, item, m_item, own_d, dim, BLOCK_D).to(p_hidden.dtype.element_ty)
    end_item = tl.minimum(first + ITEMS, num_items)
    first_p = tl.load(p_starts + first)
    end_p = tl.load(p_starts + end_item)
    column = tl.arange(0, BLOCK_M)
    own = first + column // EACH
    m_own = own < num_items
    is_own = item[:, None] == own[None, :]
    if HAS_BIAS:
        bias = tl.load(p_bias + own, mask=m_own, other=0.0).to(tl.float32)
    if EXACT:
        own_row = load_rows(p_item, own, m_own, own_d, dim, BLOCK_D).to(tl.float32)
    grad = tl.zeros((item.shape[0], BLOCK_D), tl.float32)
    bias_grad = tl.zeros((item.shape[0],), tl.float32)
    first_draw = tl.zeros_like(own)
    end_draw = tl.where(m_own, rounds, 0)
    if SOURCE == ROW_IDS:
        first_draw = tl.load(p_draw_starts + own, mask=m_own, other=0)
        end_draw = tl.load(p_draw_starts + own + 1, mask=m_own, other=0)
    for start in range(0, tl.max(end_draw - first_draw, 0), EACH):
        i = first_draw + start + column % EACH
        m_rows = i < end_draw
        if SOURCE == ROUNDS:
            p_round_keys = p_keys + tl.minimum(i, rounds - 1) * ITEM_HALVES
            drawn_place = permute(own, num_items, item_shift, item_b, p_round_keys, ITEM_HALVES, False, True)
            slot = i * rows_per_round + drawn_place // NEGATIVES
            m_rows = m_rows & (drawn_place < rows_per_round * NEGATIVES) & (slot < count)
            rows = tl.load(p_rows + slot, mask=m_rows, other=0)
        else:  # what is kept by slot elsewhere is kept by row here
            rows = (tl.load(p_sorted_draws + i, mask=m_rows, other=0) // NEGATIVES).to(tl.int32)
            slot = rows
        if REMOVE_HITS:
            m_rows = m_rows & (tl.load(p_slot_target + slot, mask=m_rows, other=-1) != own)
        peak = tl.load(p_slot_peak + slot, mask=m_rows, other=-LOWEST_PEAK)
        weight = tl.load(p_slot_weight + slot, mask=m_rows, other=0.0)
        hidden = load_rows(p_hidden, rows, m_rows, own_d, dim, BLOCK_D)
        if EXACT:
            x = tl.sum(own_row * hidden, 1)
            for chunk in range(NUM_D if NUM_D > 1 else 0):
                if chunk != own_chunk:
                    other_row = load_rows(p_item, own, m_own, chunk * BLOCK_D, dim, BLOCK_D).to(tl.float32)
                    x += tl.sum(other_row * load_rows(p_hidden, rows, m_rows, chunk * BLOCK_D, dim, BLOCK_D), 1)
        else:
            dots = tl.dot(table_row, tl.trans(hidden))
            if NUM_D > 1:
                dots = add_other_chunks(
                    dots, p_item, item, m_item, p_hidden, rows, m_rows, own_chunk, dim, hidden.dtype, BLOCK_D, NUM_D, "ieee"
                )
            x = tl.sum(tl.where(is_own & (part == 0)[:, None], dots, 0.0), 0)
        x *= scale
        if HAS_BIAS:
            x += bias
        s, slope = cap(x, softcap, HAS_SOFTCAP)
        a = exp_from(s, peak) * weight
        if HAS_SOFTCAP:
            a *= slope
        a = tl.where(m_rows, a, 0.0)
        if EXACT:
            grad += tl.sum(tl.reshape(a[:, None] * hidden, (ITEMS, EACH, BLOCK_D)), 1)
        else:
            grad = add_split_product(grad, a, is_own, part, hidden)
        if HAS_BIAS:
            bias_grad += tl.sum(tl.where(is_own & (part == 0)[:, None], a[None, :], 0.0), 1)

    start = first_p
    while start < end_p:
        chunk_end = (start // CHUNK + 1) * CHUNK
        only = tl.load(p_sorted_keys + tl.minimum(chunk_end, num_rows) - 1)
        if (start % CHUNK == 0) & (chunk_end <= end_p) & (tl.load(p_sorted_keys + start) == only):
            # the whole chunk belongs to one popular item: its sum was taken in parallel
            p_sum = p_sums + (start // CHUNK).to(tl.int64) * (dim + 1)
            is_item = ((item == only) & (part == 0)).to(tl.float32)
            grad += is_item[:, None] * tl.load(p_sum + d, mask=d < dim, other=0.0)[None, :]
            bias_grad += is_item * tl.load(p_sum + dim)
            start = chunk_end
        else:
            j = start + tl.arange(0, PART)
            m_j = (j < chunk_end) & (j < end_p)
            target_rows = tl.load(p_sorted_rows + j, mask=m_j, other=0).to(tl.int32)
            key = tl.load(p_sorted_keys + j, mask=m_j, other=-1)
            factor = tl.load(p_positive_grad + target_rows, mask=m_j, other=0.0)
            target_hidden = load_rows(p_hidden, target_rows, m_j, own_d, dim, BLOCK_D)
            is_target = item[:, None] == key[None, :]
            if EXACT:
                weights = tl.where(is_target, factor[None, :], 0.0)
                grad += tl.sum(weights[:, :, None] * target_hidden[None, :, :], 1)
            else:
                grad = add_split_product(grad, factor, is_target, part, target_hidden)
            bias_grad += tl.sum(tl.where(is_target & (part == 0)[:, None], factor[None, :], 0.0), 1)
            start = tl.minimum(start + PART, chunk_end)

    if EXACT:
        total = grad * scale
    else:
        total = tl.sum(tl.reshape(grad, (ITEMS, SPLITS, BLOCK_D)), 1) * scale
    stored = first + tl.arange(0, ITEMS)
    p_tile = p_item_grad + stored.to(tl.int64)[:, None] * dim + d[None, :]
    tl.store(p_tile, total.to(p_item_grad.dtype.element_ty), mask=(stored < num_items)[:, None] & (d < dim)[None, :])
    if HAS_BIAS:
        bias_total = bias_grad.to(p_bias_grad.dtype.element_ty)
        tl.store(p_bias_grad + item, bias_total, mask=m_item & (part == 0) & (own_chunk + item * 0 == 0))


@triton.jit
def sum_parts_kernel(
    p_hidden, p_scale, p_items, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_sorted_draws, p_draw_starts, p_part_grad, p_part_bias, p_item_grad, p_bias_grad,
    dim: tl.constexpr, splits, num_candidates,
    SOURCE: tl.constexpr, PERMUTED: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One item adds up its partial sums, in order, and the rows whose target it is, and writes its gradient row once."""
    position, own_chunk = tl.program_id(0), tl.program_id(1)
    own_d = own_chunk * BLOCK_D
    d = own_d + tl.arange(0, BLOCK_D)
    item = position
    if PERMUTED:
        item = tl.load(p_items + position)
    one = tl.arange(0, 1)
    part_width = tl.full((), 1, tl.int64) * dim
    sum_width = tl.full((), 1, tl.int64) * (dim + 1)
    grad = tl.zeros((BLOCK_D,), tl.float32)
    bias_grad = tl.zeros((1,), tl.float32)
    first = position
    end = tl.where(position < num_candidates, position + 1, position)
    if SOURCE == SORTED_PARTS:
        first = tl.load(p_draw_starts + position)
        end = tl.load(p_draw_starts + position + 1)
    for i in range(first, end):
        part = i
        if SOURCE == SORTED_PARTS:
            part = tl.load(p_sorted_draws + i).to(tl.int32)
        for split in range(splits):
            at = split * num_candidates + part
            grad += tl.load(p_part_grad + at * part_width + d, mask=d < dim, other=0.0)
            if HAS_BIAS:
                bias_grad += tl.load(p_part_bias + at)

    first_p = tl.load(p_starts + position)
    end_p = tl.load(p_starts + position + 1)
    for chunk in range(first_p // CHUNK, tl.cdiv(end_p, CHUNK)):
        if (first_p <= chunk * CHUNK) & ((chunk + 1) * CHUNK <= end_p):
            # the whole chunk belongs to this popular item: its sum was taken in parallel
            grad += tl.load(p_sums + chunk * sum_width + d, mask=d < dim, other=0.0)
            bias_grad += tl.load(p_sums + chunk * sum_width + dim)
        else:
            place = chunk * CHUNK + tl.arange(0, CHUNK)
            m_place = (place >= first_p) & (place < end_p)
            sorted_rows = tl.load(p_sorted_rows + place, mask=m_place, other=0).to(tl.int32)
            weight = tl.load(p_positive_grad + sorted_rows, mask=m_place, other=0.0)
            positive_hidden = load_rows(p_hidden, sorted_rows, m_place, own_d, dim, BLOCK_D).to(tl.float32)
            grad += tl.sum(weight[:, None] * positive_hidden, 0)
            bias_grad += tl.sum(weight, 0)
    p_row = p_item_grad + item.to(tl.int64) * dim + d
    tl.store(p_row, (grad * tl.load(p_scale)).to(p_item_grad.dtype.element_ty), mask=d < dim)
    if HAS_BIAS:
        tl.store(p_bias_grad + item + one, bias_grad.to(p_bias_grad.dtype.element_ty), mask=own_chunk + one == 0)
