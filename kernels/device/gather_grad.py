"""Gradient of the item table from rows that an item looks up: a few items a program, each row gathered once for score
and gradient."""

import triton
import triton.language as tl

from .gather import ROUNDS, ROW_IDS
from .history import in_history
from .item_store import store_item_grad
from .numbers import ROW_NUMBERS
from .permutation import permute
from .row_results import load_all_rows, load_histories, load_rows
from .scores import LOG2E, cap, exp_from, sigmoid

PARTS = tl.constexpr(2)  # partial sums of split tiles, one row a candidate position
SORTED_PARTS = tl.constexpr(3)  # the same of explicit shared ids: positions sorted by item


@triton.jit
def row_products(table_row, hidden, ITEMS: tl.constexpr, EACH: tl.constexpr, BLOCK_D: tl.constexpr):
    """Dot products (ITEMS * EACH,) of EACH rows for each item, (ITEMS * EACH, D), with the items' own rows (ITEMS,
    D)."""
    product = table_row[:, None, :] * tl.reshape(hidden.to(tl.float32), (ITEMS, EACH, BLOCK_D))
    return tl.sum(tl.reshape(product, (ITEMS * EACH, BLOCK_D)), 1)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def gather_item_grad_kernel(
    p_hidden, p_item, p_bias, p_scale, p_log_weight, p_history_items, p_history_first, p_history_end, p_rows, p_count,
    p_items, p_keys,
    p_slot_peak, p_slot_weight, p_slot_target, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_sorted_draws, p_draw_starts, p_item_grad, p_bias_grad,
    num_rows, num_items, dim: tl.constexpr, rows_per_round, rounds, strata, width, softcap, shift, b,
    BLOCK: tl.constexpr, SOURCE: tl.constexpr, PERMUTED: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_LOG_WEIGHT: tl.constexpr, REMOVE_HITS: tl.constexpr, HAS_HISTORY: tl.constexpr, BINARY: tl.constexpr,
    HALVES: tl.constexpr,
    ITEMS: tl.constexpr, EACH: tl.constexpr, LANES: tl.constexpr,
    BLOCK_D: tl.constexpr, NUM_D: tl.constexpr, CHUNK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """ITEMS positions gather the rows that drew them, EACH at a time, and those whose target they are, and write their
    gradients once."""
    first, own_chunk = tl.program_id(0) * ITEMS, tl.program_id(1)
    own_d = own_chunk * BLOCK_D
    d = own_d + tl.arange(0, BLOCK_D)
    scale = tl.load(p_scale)
    count = tl.load(p_count)
    position = first + tl.arange(0, ITEMS)
    m_item = position < num_items
    item = position
    if PERMUTED:
        item = tl.load(p_items + position, mask=m_item, other=0)
    dtype = p_hidden.dtype.element_ty
    table_row = load_rows(p_item, item, m_item, own_d, dim, BLOCK_D).to(dtype).to(tl.float32)
    # one element a pair of item and row: all that is known of a row is looked up once
    column = tl.arange(0, ITEMS * EACH)
    own = first + column // EACH
    m_own = own < num_items
    first_draw = tl.zeros_like(own)
    inner = own
    stratum = first_draw
    if SOURCE == ROW_IDS:
        first_draw = tl.load(p_draw_starts + own, mask=m_own, other=0)
        end_draw = tl.load(p_draw_starts + own + 1, mask=m_own, other=0)
    else:
        end_draw = tl.where((own < strata * width) & (count > 0), rounds, 0)
        if PERMUTED:
            stratum = tl.minimum(own // width, strata - 1)
            inner = own - stratum * width
    if HAS_BIAS or HAS_HISTORY:
        own_item = own
        if PERMUTED:
            own_item = tl.load(p_items + own, mask=m_own, other=0)
    if HAS_BIAS:
        bias = tl.load(p_bias + own_item, mask=m_own, other=0.0).to(tl.float32)
    if HAS_LOG_WEIGHT:  # only beside explicit ids, whose positions are items
        log_weight = tl.load(p_log_weight + own, mask=m_own, other=0.0)
    # rows that different lanes of a warp load are added up at the end
    grad = tl.zeros((ITEMS, LANES, BLOCK_D), tl.float32)
    bias_grad = tl.zeros((ITEMS,), tl.float32)
    for start in range(0, tl.max(end_draw - first_draw, 0), EACH):
        i = first_draw + start + column % EACH
        m_rows = start + column % EACH < end_draw - first_draw
        if SOURCE == ROUNDS:
            p_round_keys = p_keys + (tl.minimum(i, rounds - 1) * strata + stratum) * HALVES
            place = permute(inner, width, shift, b, p_round_keys, HALVES, False, True)
            slot = i * rows_per_round + place // BLOCK
            m_rows = m_rows & (place < rows_per_round * BLOCK) & (slot < count)
            slot = tl.where(m_rows, slot, 0)  # of a row that counts, so that its numbers times 0 are 0
            rows = tl.load(p_rows + slot)
        else:  # what is kept by slot elsewhere is kept by row here
            rows = (tl.load(p_sorted_draws + i, mask=m_rows, other=0) // BLOCK).to(tl.int32)
            slot = rows
        if REMOVE_HITS:
            m_rows = m_rows & (tl.load(p_slot_target + slot) != own)
        if HAS_HISTORY:
            history_first, history_end = load_histories(p_history_first, p_history_end, rows, HAS_HISTORY)
            m_rows = m_rows & (in_history(p_history_items, history_first, history_end, own_item) == 0)
        peak = tl.load(p_slot_peak + slot)
        weight = tl.load(p_slot_weight + slot)
        if SOURCE == ROUNDS:
            hidden = load_all_rows(p_hidden, rows, own_d, dim, BLOCK_D)
        else:
            hidden = load_rows(p_hidden, rows, m_rows, own_d, dim, BLOCK_D)
        dot = row_products(table_row, hidden, ITEMS, EACH, BLOCK_D)
        for chunk in range(NUM_D if NUM_D > 1 else 0):
            if chunk != own_chunk:
                other_row = load_rows(p_item, item, m_item, chunk * BLOCK_D, dim, BLOCK_D).to(dtype).to(tl.float32)
                other_hidden = load_rows(p_hidden, rows, m_rows, chunk * BLOCK_D, dim, BLOCK_D)
                dot += row_products(other_row, other_hidden, ITEMS, EACH, BLOCK_D)
        if HAS_BIAS or HAS_SOFTCAP or HAS_LOG_WEIGHT or BINARY:
            x = dot * scale
            if HAS_BIAS:
                x += bias
            s, slope = cap(x, softcap, HAS_SOFTCAP)
            if HAS_LOG_WEIGHT:
                s += log_weight
            if BINARY:
                a = sigmoid(s)
            else:
                a = exp_from(s, peak)
            a *= weight
            if HAS_SOFTCAP:
                a *= slope
        else:
            a = tl.exp2(tl.fma(dot, scale * LOG2E, -peak)) * weight
        a = tl.where(m_rows, a, 0.0)
        weighted = tl.reshape(a[:, None] * hidden.to(tl.float32), (ITEMS, EACH // LANES, LANES, BLOCK_D))
        grad += tl.sum(weighted, 1)
        if HAS_BIAS:
            bias_grad += tl.sum(tl.reshape(a, (ITEMS, EACH)), 1)

    total = tl.sum(grad, 1)
    start_p = tl.load(p_starts + first)
    end_p = tl.load(p_starts + tl.minimum(first + ITEMS, num_items))
    while start_p < end_p:
        chunk_end = (start_p // CHUNK + 1) * CHUNK
        only = tl.load(p_sorted_keys + tl.minimum(chunk_end, num_rows) - 1)
        if (start_p % CHUNK == 0) & (chunk_end <= end_p) & (tl.load(p_sorted_keys + start_p) == only):
            # the whole chunk belongs to one popular item: its sum was taken in parallel
            p_sum = p_sums + (start_p // CHUNK).to(tl.int64) * (dim + 1)
            is_item = (position == only).to(tl.float32)
            total += is_item[:, None] * tl.load(p_sum + d, mask=d < dim, other=0.0)[None, :]
            bias_grad += is_item * tl.load(p_sum + dim)
            start_p = chunk_end
        else:
            j = start_p + tl.arange(0, PART)
            m_j = (j < chunk_end) & (j < end_p)
            target_rows = tl.load(p_sorted_rows + j, mask=m_j, other=0).to(tl.int32)
            key = tl.load(p_sorted_keys + j, mask=m_j, other=-1)
            factor = tl.load(p_positive_grad + target_rows, mask=m_j, other=0.0)
            target_hidden = load_rows(p_hidden, target_rows, m_j, own_d, dim, BLOCK_D).to(tl.float32)
            factors = tl.where(position[:, None] == key[None, :], factor[None, :], 0.0)
            total += tl.sum(factors[:, :, None] * target_hidden[None, :, :], 1)
            bias_grad += tl.sum(factors, 1)
            start_p = tl.minimum(start_p + PART, chunk_end)

    store_item_grad(p_item_grad, p_bias_grad, total, bias_grad, item, m_item, scale, own_d, dim, False, BLOCK_D)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def sum_parts_kernel(
    p_hidden, p_scale, p_items, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_sorted_draws, p_draw_starts, p_part_grad, p_part_bias, p_item_grad, p_bias_grad,
    dim: tl.constexpr, splits, num_candidates,
    SOURCE: tl.constexpr, PERMUTED: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One item adds up its partial sums, in order, and the rows whose target it is, and writes its gradient row
    once."""
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
            if p_part_grad is not None:
                grad += tl.load(p_part_grad + at * part_width + d, mask=d < dim, other=0.0)
            if p_part_bias is not None:
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
    store_item_grad(
        p_item_grad, p_bias_grad, grad[None, :], bias_grad, item + one, one == 0, tl.load(p_scale), own_d, dim,
        False, BLOCK_D,
    )  # fmt: skip
