"""Loss and item gradient where every row has candidates of its own: rows of the item table are gathered, not multiplied.

Serves independent draws and explicit ids per row; the item gradient also adds up the partial sums of split tiles.
"""

import triton
import triton.language as tl

from .permutation_kernels import permute
from .score_kernels import cap, exp
from .tile_kernels import load_rows, load_targets, positive_score, store_row_results

ROUNDS = tl.constexpr(0)  # independent draws: which rows drew an item follows from the inverse permutation
ROW_IDS = tl.constexpr(1)  # explicit ids: draws sorted by item
PARTS = tl.constexpr(2)  # partial sums of split tiles, one row a candidate position
SORTED_PARTS = tl.constexpr(3)  # the same of explicit shared ids: positions sorted by item


@triton.jit
def gather_scores(
    p_hidden, p_item, p_bias, rows, m_rows, ids, m_ids, dim, scale, softcap, own_d,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, NUM_D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(capped scores, their slopes, dot products) (B,) of pairs (row, item), with their own chunks in fp32; rows or ids may have one element."""
    own_hidden = load_rows(p_hidden, rows, m_rows, own_d, dim, BLOCK_D)
    own_item = load_rows(p_item, ids, m_ids, own_d, dim, BLOCK_D).to(own_hidden.dtype).to(tl.float32)
    own_hidden = own_hidden.to(tl.float32)
    if NUM_D == 1:
        dot = tl.sum(own_hidden * own_item, 1)
    else:
        dot = tl.sum(own_hidden * own_item, 1) * 0.0
        for chunk in range(NUM_D):
            hidden = load_rows(p_hidden, rows, m_rows, chunk * BLOCK_D, dim, BLOCK_D)
            item = load_rows(p_item, ids, m_ids, chunk * BLOCK_D, dim, BLOCK_D).to(hidden.dtype)
            dot += tl.sum(hidden.to(tl.float32) * item.to(tl.float32), 1)
    x = dot * scale
    if HAS_BIAS:
        x += tl.load(p_bias + ids, mask=m_ids, other=0.0).to(tl.float32)
    s, slope = cap(x, softcap, HAS_SOFTCAP)
    return s, slope, dot, own_hidden, own_item


@triton.jit
def gather_forward_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_ids, p_rows, p_count, p_keys,
    p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average,
    num_rows, num_items, dim, negatives, rows_per_round, softcap, item_shift, item_b,
    SOURCE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, REMOVE_HITS: tl.constexpr,
    SCALE_GRAD: tl.constexpr, ITEM_HALVES: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
):  # fmt: skip
    """One row walks its candidates with a running softmax and accumulates their weighted average."""
    slot, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    one = tl.arange(0, 1)
    m_in = (slot + one) < num_rows
    m_counted = (slot + one) < tl.load(p_count)
    rows = tl.load(p_rows + slot + one)
    target, m_target = load_targets(p_target, rows, m_counted, num_items)
    scale = tl.load(p_scale)

    m = tl.full((1,), float("-inf"), tl.float32)
    l = tl.zeros((1,), tl.float32)
    kept = tl.zeros((1,), tl.float32)
    average_dot = tl.zeros((1,), tl.float32)
    average = tl.zeros((1, BLOCK_D), tl.float32)
    end = tl.where(slot < tl.load(p_count), negatives, 0)
    for start in range(0, end, BLOCK_B):
        k = start + tl.arange(0, BLOCK_B)
        inside = k < negatives
        if SOURCE == ROUNDS:
            position = (slot % rows_per_round) * negatives + k
            p_round_keys = p_keys + (slot // rows_per_round) * ITEM_HALVES
            ids = permute(position, num_items, item_shift, item_b, p_round_keys, ITEM_HALVES, False, False)
            malformed = k < 0
        else:
            ids = tl.load(p_ids + tl.load(p_rows + slot).to(tl.int64) * negatives + k, mask=inside, other=-1)
            malformed = inside & ((ids < -1) | (ids >= num_items))
            inside = inside & (ids >= 0) & (ids < num_items)
            ids = tl.where(inside, ids, 0).to(tl.int32)
        keep = inside
        if REMOVE_HITS:
            keep = keep & (ids != target)
        s, slope, dot, hidden, item = gather_scores(
            p_hidden, p_item, p_bias, rows, m_counted, ids, keep, dim, scale, softcap, own_d,
            HAS_BIAS, HAS_SOFTCAP, NUM_D, BLOCK_D,
        )  # fmt: skip
        z = tl.where(keep, s, float("-inf"))
        new_m = tl.maximum(m, tl.max(z, 0))
        finite_m = tl.where(new_m == float("-inf"), 0.0, new_m)  # nothing kept yet: avoid inf - inf
        p = exp(z - finite_m)
        fade = exp(m - finite_m)
        l = l * fade + tl.sum(p, 0) + tl.where(tl.max(malformed.to(tl.int32), 0) > 0, float("nan"), 0.0)
        kept += tl.sum(keep.to(tl.float32), 0)
        if HAS_SOFTCAP:
            p = tl.where(keep, p * slope, 0.0)
        if SCALE_GRAD:
            average_dot = average_dot * fade + tl.sum(p * dot, 0)
        average = average * fade[:, None] + tl.sum(p[:, None] * item, 0)[None, :]
        m = new_m

    z_positive, slope_positive, dot_positive = positive_score(
        p_hidden, p_item, p_bias, rows, m_counted, target, m_target, dim, scale, softcap, HAS_BIAS, HAS_SOFTCAP, NUM_D, BLOCK_D
    )
    store_row_results(
        p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average, rows, m_in, m_counted, m, l, kept, average_dot, average,
        z_positive, num_items, own_d, dim, SCALE_GRAD, BLOCK_D,
    )  # fmt: skip


@triton.jit
def gather_item_grad_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_rows, p_count, p_keys, p_items,
    p_peak, p_shift, p_row_grad, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_sorted_draws, p_draw_starts, p_part_grad, p_part_bias, p_item_grad, p_bias_grad,
    num_rows, num_items, dim, negatives, rows_per_round, rounds, splits, num_candidates, ignore_index, softcap,
    item_shift, item_b,
    SOURCE: tl.constexpr, PERMUTED: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, REMOVE_HITS: tl.constexpr,
    ITEM_HALVES: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One item gathers the rows that drew it and the rows whose target it is, and writes its gradient row once."""
    position, own_chunk = tl.program_id(0), tl.program_id(1)
    own_d = own_chunk * BLOCK_D
    d = own_d + tl.arange(0, BLOCK_D)
    scale = tl.load(p_scale)
    count = tl.load(p_count)
    item = position
    if PERMUTED:
        item = tl.load(p_items + position)
    one = tl.arange(0, 1)
    part_width = tl.full((), 1, tl.int64) * dim
    sum_width = tl.full((), 1, tl.int64) * (dim + 1)
    grad = tl.zeros((BLOCK_D,), tl.float32)
    bias_grad = tl.zeros((1,), tl.float32)

    if SOURCE == PARTS or SOURCE == SORTED_PARTS:
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
    else:
        first = 0
        end = rounds
        if SOURCE == ROW_IDS:
            first = tl.load(p_draw_starts + position)
            end = tl.load(p_draw_starts + position + 1)
        for start in range(first, end, BLOCK_B):
            i = start + tl.arange(0, BLOCK_B)
            m_rows = i < end
            if SOURCE == ROUNDS:
                round_ = tl.minimum(i, rounds - 1)
                drawn_place = permute(
                    item + i * 0, num_items, item_shift, item_b, p_keys + round_ * ITEM_HALVES, ITEM_HALVES, False, True
                )
                slot = i * rows_per_round + drawn_place // negatives
                m_rows = m_rows & (drawn_place < rows_per_round * negatives) & (slot < count)
                rows = tl.load(p_rows + slot, mask=m_rows, other=0)
            else:
                rows = (tl.load(p_sorted_draws + i, mask=m_rows, other=0) // negatives).to(tl.int32)
            target = tl.load(p_target + rows, mask=m_rows, other=ignore_index).to(tl.int64)
            m_rows = m_rows & (target != ignore_index)
            if REMOVE_HITS:
                m_rows = m_rows & (target != item)
            s, slope, dot, hidden, own_item = gather_scores(
                p_hidden, p_item, p_bias, rows, m_rows, item + one, one == 0, dim, scale, softcap, own_d,
                HAS_BIAS, HAS_SOFTCAP, NUM_D, BLOCK_D,
            )  # fmt: skip
            peak = tl.load(p_peak + rows, mask=m_rows, other=0.0)
            shift = tl.load(p_shift + rows, mask=m_rows, other=0.0)
            row_grad = tl.load(p_row_grad + rows, mask=m_rows, other=0.0)
            a = row_grad * exp((s - peak) - shift)
            if HAS_SOFTCAP:
                a = a * slope
            a = tl.where(m_rows, a, 0.0)
            grad += tl.sum(a[:, None] * hidden, 0)
            bias_grad += tl.sum(a, 0)

    first_p = tl.load(p_starts + position)
    end_p = tl.load(p_starts + position + 1)
    for chunk in range(first_p // BLOCK_P, tl.cdiv(end_p, BLOCK_P)):
        if (first_p <= chunk * BLOCK_P) & ((chunk + 1) * BLOCK_P <= end_p):
            # the whole chunk belongs to this popular item: its sum was taken in parallel
            grad += tl.load(p_sums + chunk * sum_width + d, mask=d < dim, other=0.0)
            bias_grad += tl.load(p_sums + chunk * sum_width + dim)
        else:
            place = chunk * BLOCK_P + tl.arange(0, BLOCK_P)
            m_place = (place >= first_p) & (place < end_p)
            sorted_rows = tl.load(p_sorted_rows + place, mask=m_place, other=0).to(tl.int32)
            weight = tl.load(p_positive_grad + sorted_rows, mask=m_place, other=0.0)
            positive_hidden = load_rows(p_hidden, sorted_rows, m_place, own_d, dim, BLOCK_D).to(tl.float32)
            grad += tl.sum(weight[:, None] * positive_hidden, 0)
            bias_grad += tl.sum(weight, 0)
    p_row = p_item_grad + item.to(tl.int64) * dim + d
    tl.store(p_row, (grad * scale).to(p_item_grad.dtype.element_ty), mask=d < dim)
    if HAS_BIAS:
        tl.store(p_bias_grad + item + one, bias_grad.to(p_bias_grad.dtype.element_ty), mask=own_chunk + one == 0)
