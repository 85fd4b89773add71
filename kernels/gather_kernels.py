"""Loss where every row has candidates of its own, independent draws or explicit ids: rows of the item table are gathered."""

import triton
import triton.language as tl

from .permutation_kernels import permute
from .score_kernels import LOG2E, LOWEST_PEAK, cap, exp_from
from .tile_kernels import load_rows, load_targets, positive_score, store_row_results

ROUNDS = tl.constexpr(0)  # independent draws: which rows drew an item follows from the inverse permutation
ROW_IDS = tl.constexpr(1)  # explicit ids: draws sorted by item


@triton.jit
def gather_scores(
    p_hidden, p_item, p_bias, rows, m_rows, ids, m_ids, dim: tl.constexpr, scale, softcap, own_d,
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
    num_rows, num_items, dim: tl.constexpr, negatives, rows_per_round, softcap, item_shift, item_b,
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

    peak = tl.full((1,), LOWEST_PEAK, tl.float32)
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
        s = tl.where(keep, s, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(s, 0) * LOG2E)
        p = exp_from(s, new_peak)
        fade = tl.exp2(peak - new_peak)
        l = l * fade + tl.sum(p, 0) + tl.where(tl.max(malformed.to(tl.int32), 0) > 0, float("nan"), 0.0)
        kept += tl.sum(keep.to(tl.float32), 0)
        if HAS_SOFTCAP:
            p = tl.where(keep, p * slope, 0.0)
        if SCALE_GRAD:
            average_dot = average_dot * fade + tl.sum(p * dot, 0)
        average = average * fade[:, None] + tl.sum(p[:, None] * item, 0)[None, :]
        peak = new_peak

    z_positive, slope_positive, dot_positive = positive_score(
        p_hidden, p_item, p_bias, rows, m_counted, target, m_target, dim, scale, softcap, HAS_BIAS, HAS_SOFTCAP, BLOCK_D
    )
    store_row_results(
        p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average, rows, m_in, m_counted, peak, l, kept, average_dot, average,
        z_positive, num_items, own_d, dim, SCALE_GRAD, BLOCK_D,
    )  # fmt: skip
