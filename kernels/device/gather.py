"""Loss where every row has candidates of its own, independent draws or explicit ids: rows of the item table are
gathered."""

import triton
import triton.language as tl

from .history import in_history
from .permutation import permute
from .row_results import load_all_rows, load_histories, load_rows, load_targets, store_row_results
from .scores import LOG2E, LOWEST_PEAK, cap, exp_from, sigmoid_softplus

ROUNDS = tl.constexpr(0)  # independent draws: which rows drew an item follows from the inverse permutation
ROW_IDS = tl.constexpr(1)  # explicit ids: draws sorted by item
NO_NEGATIVE = tl.constexpr(-(2**31))


@triton.jit
def row_candidates(
    p_ids, p_keys, p_history_items, history_first, history_end, slot, row, target, stratum, start,
    num_items, block, strata, width, rows_per_round, shift, b,
    SOURCE: tl.constexpr, PERMUTED: tl.constexpr, REMOVE_HITS: tl.constexpr, HAS_HISTORY: tl.constexpr,
    HALVES: tl.constexpr,
    LOOKUP: tl.constexpr,
):  # fmt: skip
    """(ids, with the sign bit set where they are no negatives, which are negatives, which are malformed) from place
    ``start`` of a row's stratum on."""
    k = start + tl.arange(0, LOOKUP)
    keep = k < block
    if SOURCE == ROUNDS:
        p_round_keys = p_keys + (slot // rows_per_round * strata + stratum) * HALVES
        ids = permute((slot % rows_per_round) * block + k, width, shift, b, p_round_keys, HALVES, False, False)
        if PERMUTED:
            ids = tl.load(p_ids + stratum * width + ids)
        malformed = k < 0
    else:
        ids = tl.load(p_ids + row.to(tl.int64) * block + k, mask=keep, other=-1)
        malformed = keep & ((ids < -1) | (ids >= num_items))
        keep = keep & (ids >= 0) & (ids < num_items)
        ids = tl.where(keep, ids, 0).to(tl.int32)
    if REMOVE_HITS:
        keep = keep & (ids != target)
    if HAS_HISTORY:
        keep = keep & (in_history(p_history_items, history_first, history_end, ids) == 0)
    return tl.where(keep, ids, ids | NO_NEGATIVE), keep, malformed


@triton.jit
def gather_forward_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_log_weight, p_history_weight, p_row_ids, p_history_items,
    p_history_first, p_history_end,
    p_ids, p_rows, p_count, p_keys,
    p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average,
    num_rows, num_items, catalog, dim: tl.constexpr, block, strata, width, rows_per_round, softcap, positive_weight,
    draw_weight, shift, b,
    SOURCE: tl.constexpr, PERMUTED: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    HAS_LOG_WEIGHT: tl.constexpr, CORRECTION: tl.constexpr, REMOVE_HITS: tl.constexpr, HAS_HISTORY: tl.constexpr,
    BINARY: tl.constexpr, SCALE_GRAD: tl.constexpr, IS_SHARD: tl.constexpr, HALVES: tl.constexpr,
    BLOCK_B: tl.constexpr, LOOKUP: tl.constexpr, LANES: tl.constexpr,
    BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
):  # fmt: skip
    """One row walks its candidates, stratum by stratum, with a running softmax (BINARY: sigmoids) and accumulates their
    weighted average.

    LOOKUP candidates are looked up together, one a lane, and go in tiles of BLOCK_B rows, of which the warp loads LANES
    at once.
    """
    slot, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    one = tl.arange(0, 1)
    m_in = (slot + one) < num_rows
    m_counted = (slot + one) < tl.load(p_count)
    rows = tl.load(p_rows + slot + one)
    target, m_target = load_targets(p_target, rows, m_counted, num_items)
    history_first, history_end = load_histories(p_history_first, p_history_end, rows, HAS_HISTORY)
    scale = tl.load(p_scale)

    peak = tl.full((1,), LOWEST_PEAK, tl.float32)
    l = tl.zeros((1,), tl.float32)
    average_dot = tl.zeros((1,), tl.float32)
    kept = tl.zeros((LOOKUP,), tl.int32)
    # rows that different lanes of the warp load are added up at the end
    average = tl.zeros((LANES, BLOCK_D), tl.float32)
    tiles = tl.where(slot < tl.load(p_count), tl.cdiv(block, BLOCK_B) * strata, 0)
    stratum = 0
    start = 0
    column = 0
    row = tl.load(p_rows + slot)
    codes, keep, malformed = row_candidates(
        p_ids, p_keys, p_history_items, history_first, history_end, slot, row, target, stratum, start,
        num_items, block, strata, width, rows_per_round, shift, b,
        SOURCE, PERMUTED, REMOVE_HITS, HAS_HISTORY, HALVES, LOOKUP,
    )  # fmt: skip
    own_hidden = load_rows(p_hidden, rows, m_counted, own_d, dim, BLOCK_D)
    dtype: tl.constexpr = own_hidden.dtype
    for _ in range(tiles):
        code = tl.gather(codes, column + tl.arange(0, BLOCK_B), 0)
        keep_tile = code >= 0
        ids = code & ~NO_NEGATIVE
        if SOURCE == ROUNDS:
            own_item = load_all_rows(p_item, ids, own_d, dim, BLOCK_D)
        else:
            own_item = load_rows(p_item, ids, keep_tile, own_d, dim, BLOCK_D)
        column += BLOCK_B
        if (column == LOOKUP) | (
            start + column >= block
        ):  # the next candidates are looked up while this tile's rows come
            kept += keep.to(tl.int32)
            l += tl.where(tl.max(malformed.to(tl.int32), 0) > 0, float("nan"), 0.0)
            column = 0
            start += LOOKUP
            stratum = tl.minimum(stratum + (start >= block).to(tl.int32), strata - 1)
            start = tl.where(start >= block, 0, start)
            codes, keep, malformed = row_candidates(
                p_ids, p_keys, p_history_items, history_first, history_end, slot, row, target, stratum, start,
                num_items, block, strata, width, rows_per_round, shift, b,
                SOURCE, PERMUTED, REMOVE_HITS, HAS_HISTORY, HALVES, LOOKUP,
            )  # fmt: skip
        item = own_item.to(dtype).to(tl.float32)
        dot = tl.sum(own_hidden.to(tl.float32) * item, 1)
        for chunk in range(NUM_D if NUM_D > 1 else 0):
            if chunk * BLOCK_D != own_d:
                hidden = load_rows(p_hidden, rows, m_counted, chunk * BLOCK_D, dim, BLOCK_D).to(tl.float32)
                other_item = load_rows(p_item, ids, keep_tile, chunk * BLOCK_D, dim, BLOCK_D)
                dot += tl.sum(hidden * other_item.to(dtype).to(tl.float32), 1)
        x = dot * scale
        if HAS_BIAS:
            x += tl.load(p_bias + ids).to(tl.float32)
        s, slope = cap(x, softcap, HAS_SOFTCAP)
        if HAS_LOG_WEIGHT:
            s += tl.load(p_log_weight + ids)
        s = tl.where(keep_tile, s, float("-inf"))
        if BINARY:
            p, term = sigmoid_softplus(s)
            fade = tl.full((1,), 1.0, tl.float32)
            l += tl.sum(term, 0)
        else:
            new_peak = tl.maximum(peak, tl.max(s, 0) * LOG2E)
            p = exp_from(s, new_peak)
            fade = tl.exp2(peak - new_peak)
            l = l * fade + tl.sum(p, 0)
            peak = new_peak
        if HAS_SOFTCAP:
            p = tl.where(keep_tile, p * slope, 0.0)
        if SCALE_GRAD:
            average_dot = average_dot * fade + tl.sum(p * dot, 0)
        weighted = tl.reshape(p[:, None] * item, (BLOCK_B // LANES, LANES, BLOCK_D))
        average = average * fade[:, None] + tl.sum(weighted, 0)

    kept = tl.sum(kept.to(tl.float32), 0) + tl.zeros((1,), tl.float32)
    average = tl.sum(average, 0)[None, :]
    store_row_results(
        p_hidden, p_item, p_bias, p_log_weight, p_history_weight, p_row_ids, p_history_items, p_loss, p_lse, p_peak,
        p_shift, p_average_dot, p_average,
        rows, m_in, m_counted, target, m_target, history_first, history_end, peak, l, kept, average_dot, average,
        scale, softcap, catalog, positive_weight, draw_weight, own_d, dim,
        HAS_BIAS, HAS_SOFTCAP, CORRECTION, HAS_HISTORY, BINARY, SCALE_GRAD, IS_SHARD, BLOCK_D,
    )  # fmt: skip
