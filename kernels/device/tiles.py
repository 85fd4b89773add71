"""Loss where a tile of rows shares its candidates, so that scores are matrix products.

Serves grouped draws, every item, every item with a membership mask (independent draws of more than half the catalog)
and explicit ids shared by all rows. Suffixes of shape comments: M rows of a tile, B candidates of a tile, D width.
"""

import triton
import triton.language as tl

from .history import catalog_ids, in_history
from .permutation import permute
from .row_results import load_all_rows, load_histories, load_rows, load_targets, split_tiles, store_row_results
from .scores import LOG2E, LOWEST_PEAK, LOWEST_SCORE, cap, exp_from, sigmoid_softplus

GROUPED = tl.constexpr(0)
ALL = tl.constexpr(1)
MEMBER = tl.constexpr(2)
SHARED = tl.constexpr(3)
LISTED = tl.constexpr(4)  # explicit ids, a list for each group of rows


@triton.jit
def candidate_ids(p_ids, position, num_candidates, num_items, SOURCE: tl.constexpr, FULL: tl.constexpr):
    """(item ids, which of them are candidates, which are malformed) at ``position`` of the candidate list; FULL: all
    are, or weigh nothing in a list, where the ids of empty columns are its first item's."""
    if FULL:
        inside = position >= 0
        ids = tl.load(p_ids + position)
        if SOURCE == LISTED:
            inside = ids >= 0
            ids = tl.where(inside, ids, tl.maximum(tl.load(p_ids), 0))
        return ids, inside, position < 0
    inside = position < num_candidates
    ids = position
    if SOURCE == GROUPED or SOURCE == SHARED or SOURCE == LISTED:
        ids = tl.load(p_ids + position, mask=inside, other=-1)
    malformed = inside & ((ids < -1) | (ids >= num_items))
    inside = inside & (ids >= 0) & (ids < num_items)
    return tl.where(inside, ids, 0).to(tl.int32), inside, malformed


@triton.jit
def membership(ids, slot, p_keys, num_rows, num_items, negatives, shift, b, HALVES: tl.constexpr):
    """Whether independent row ``slot`` drew item ``ids`` (two shapes that broadcast) among its first K positions of its
    own round.

    Slots behind the last row, which tiles are padded with, have no keys and take the last row's.
    """
    slot = tl.minimum(slot, num_rows - 1)
    x = ids + slot * 0
    return permute(x, num_items, shift, b, p_keys + slot * HALVES, HALVES, False, True) < negatives


@triton.jit
def add_other_chunks(
    dot, p_left, left, m_left, p_right, right, m_right, own_chunk, dim: tl.constexpr, dtype: tl.constexpr,
    BLOCK_D: tl.constexpr, NUM_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dot`` (left, right), taken over the program's own chunk of the width, plus the products of the other chunks."""
    for chunk in range(NUM_D):
        if chunk != own_chunk:
            a = load_rows(p_left, left, m_left, chunk * BLOCK_D, dim, BLOCK_D).to(dtype)
            b = load_rows(p_right, right, m_right, chunk * BLOCK_D, dim, BLOCK_D).to(dtype)
            dot = tl.dot(a, tl.trans(b), dot, input_precision=PRECISION)
    return dot


@triton.jit
def tile_forward_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_log_weight, p_list_weights, p_history_weight, p_row_ids,
    p_history_items, p_history_first, p_history_end,
    p_ids, p_ids_again, p_rows, p_count, p_positive_key, p_group_blocks, p_keys,
    p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average, p_part_rows, p_part_average,
    num_rows, num_items, catalog, dim: tl.constexpr, num_candidates, slots, block, group_size, last_block, parallel,
    softcap,
    item_shift, item_b, negatives, positive_weight, draw_weight,
    SOURCE: tl.constexpr, HAS_BLOCKS: tl.constexpr, FULL: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_LOG_WEIGHT: tl.constexpr, CORRECTION: tl.constexpr, REMOVE_HITS: tl.constexpr, HAS_HISTORY: tl.constexpr,
    BINARY: tl.constexpr, SCALE_GRAD: tl.constexpr, IS_SHARD: tl.constexpr, SPLIT: tl.constexpr,
    MOST_SPLITS: tl.constexpr, ITEM_HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of rows walks its candidates with a running softmax and accumulates their weighted average.

    BINARY: with sigmoids in place of the softmax, which need no peak. FULL: every slot has BLOCK_B candidates, so that
    none needs a mask. SPLIT: where few rows count, several programs share a tile's walk, each a part of it that
    ``combine_forward_kernel`` joins.
    """
    program, own_chunk = tl.program_id(0), tl.program_id(1)
    own_d = own_chunk * BLOCK_D
    count = tl.load(p_count)
    tile, first_slot, end_slot = program, 0, slots
    if SPLIT:
        tiles, splits, each = split_tiles(count, slots, parallel, BLOCK_M, MOST_SPLITS)
        tile = tl.where(splits > 1, program % tiles, program)
        first_slot = tl.where(splits > 1, program // tiles * each, 0)
        end_slot = tl.minimum(first_slot + each, slots)
    slot_m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    m_in = slot_m < num_rows
    m_counted = slot_m < count
    rows = tl.load(p_rows + slot_m, mask=m_in, other=0)
    target, m_target = load_targets(p_target, rows, m_counted, num_items)
    # where candidates are distinct, a hit is told by the target's position: no id has to reach the scores' layout
    DISTINCT: tl.constexpr = SOURCE != SHARED and SOURCE != LISTED
    GAPS: tl.constexpr = not FULL or SOURCE == LISTED  # some columns may hold no candidate
    # where more than one hit may be dropped, kept draws are counted one by one
    COUNTS: tl.constexpr = HAS_HISTORY or (SOURCE != GROUPED and SOURCE != ALL)
    target_position = target
    if SOURCE == GROUPED:
        target_position = tl.load(p_positive_key + rows, mask=m_target, other=-1)
    history_first, history_end = load_histories(p_history_first, p_history_end, rows, HAS_HISTORY)
    scale = tl.load(p_scale)
    group = (tile * BLOCK_M) // group_size
    first_of_group = group * slots
    if SOURCE == LISTED:
        p_ids += group.to(tl.int64) * num_candidates
        p_ids_again += group.to(tl.int64) * num_candidates
        if HAS_LOG_WEIGHT:
            p_list_weights += group.to(tl.int64) * num_candidates
    hidden = load_rows(p_hidden, rows, m_counted, own_d, dim, BLOCK_D)

    peak = tl.full((BLOCK_M,), LOWEST_PEAK, tl.float32)
    l = tl.zeros((BLOCK_M,), tl.float32)
    kept = tl.zeros((BLOCK_M,), tl.float32)
    average_dot = tl.zeros((BLOCK_M,), tl.float32)
    average = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    offset = tl.arange(0, BLOCK_B)
    end_slot = tl.where(tile * BLOCK_M < count, end_slot, first_slot)
    for slot in range(first_slot, end_slot):
        start = slot * block
        if HAS_BLOCKS:
            start = tl.load(p_group_blocks + first_of_group + slot) * block
        end = start + block
        if not FULL:
            end = tl.minimum(start + tl.where(slot == slots - 1, last_block, block), num_candidates)
        ids, m_ids, malformed = candidate_ids(p_ids, start + offset, end, num_items, SOURCE, FULL)
        if FULL:
            item = load_all_rows(p_item, ids, own_d, dim, BLOCK_D).to(hidden.dtype)
        else:
            item = load_rows(p_item, ids, m_ids, own_d, dim, BLOCK_D).to(hidden.dtype)
        dot = tl.dot(hidden, tl.trans(item), input_precision=PRECISION)
        if NUM_D > 1:
            dot = add_other_chunks(
                dot,
                p_hidden,
                rows,
                m_counted,
                p_item,
                ids,
                m_ids,
                own_chunk,
                dim,
                hidden.dtype,
                BLOCK_D,
                NUM_D,
                PRECISION,
            )
        x = dot * scale
        if HAS_BIAS:
            x += tl.load(p_bias + ids, mask=m_ids, other=0.0).to(tl.float32)[None, :]
        s, slope = cap(x, softcap, HAS_SOFTCAP)
        item_ids, there = ids, m_ids
        if SOURCE == LISTED and FULL:  # looked up once more: cheaper than to bring them into the scores' layout
            item_ids = tl.load(p_ids_again + start + offset)
            there = item_ids >= 0
        least = LOWEST_SCORE
        if HAS_LOG_WEIGHT or GAPS:
            if not HAS_LOG_WEIGHT:
                weight = tl.where(there, 0.0, float("-inf"))
            elif SOURCE == LISTED and FULL:  # looked up beforehand, so that they need not wait for the ids
                weight = tl.load(p_list_weights + start + offset)
            elif SOURCE == LISTED:
                weight = tl.load(p_list_weights + start + offset, mask=there, other=float("-inf"))
            else:
                weight = tl.load(p_log_weight + ids, mask=there, other=float("-inf"))
            s += weight[None, :]  # minus infinity where there is no candidate
            least = tl.minimum(weight, LOWEST_SCORE)[None, :]
        if COUNTS:  # a kept draw of minus infinity, as of an item masked out by its bias, weighs nothing and is one
            s = tl.maximum(s, least, propagate_nan=tl.PropagateNan.ALL)
        if REMOVE_HITS:
            if DISTINCT:
                s = tl.where((start + offset)[None, :] != target_position[:, None], s, float("-inf"))
            else:
                s = tl.where(item_ids[None, :] != target[:, None], s, float("-inf"))
        if SOURCE == MEMBER:
            drawn = membership(
                ids[None, :], slot_m[:, None], p_keys, num_rows, num_items, negatives, item_shift, item_b, ITEM_HALVES
            )
            s = tl.where(drawn, s, float("-inf"))
        if HAS_HISTORY:
            known_by = catalog_ids(p_row_ids, ids, m_ids)
            known = in_history(p_history_items, history_first[:, None], history_end[:, None], known_by[None, :])
            s = tl.where(known, float("-inf"), s)
        if BINARY:
            p, term = sigmoid_softplus(s)
            fade = tl.full((BLOCK_M,), 1.0, tl.float32)  # nothing to rescale; the compiler drops it
            l += tl.sum(term, 1)
        else:
            new_peak = tl.maximum(peak, tl.max(s, 1) * LOG2E)
            p = exp_from(s, new_peak[:, None])
            fade = tl.exp2(peak - new_peak)
            l = l * fade + tl.sum(p, 1)
            peak = new_peak
        if COUNTS:
            kept += tl.sum(tl.where(s != float("-inf"), 1.0, 0.0), 1)
        else:  # distinct candidates at [start, end): the target's position tells of a hit
            kept += (end - start).to(tl.float32)
            if REMOVE_HITS:
                kept -= ((target_position >= start) & (target_position < end)).to(tl.float32)
        if not DISTINCT:
            l += tl.where(tl.max(malformed.to(tl.int32), 0) > 0, float("nan"), 0.0)
        if HAS_SOFTCAP:
            p *= slope
        if SCALE_GRAD:
            average_dot = average_dot * fade + tl.sum(p * dot, 1)
        average = tl.dot(p.to(item.dtype), item, average * fade[:, None], input_precision=PRECISION)

    if SPLIT:
        part = program * BLOCK_M + tl.arange(0, BLOCK_M)
        d = own_d + tl.arange(0, BLOCK_D)
        m_part = (part >= 0) & (splits > 1) & (program < tiles * splits)
        m_store = m_part & (own_chunk == 0)
        tl.store(p_part_rows + part * 4, peak, mask=m_store)
        tl.store(p_part_rows + part * 4 + 1, l, mask=m_store)
        tl.store(p_part_rows + part * 4 + 2, kept, mask=m_store)
        tl.store(p_part_rows + part * 4 + 3, average_dot, mask=m_store)
        tl.store(
            p_part_average + part.to(tl.int64)[:, None] * dim + d[None, :],
            average,
            mask=m_part[:, None] & (d < dim)[None, :],
        )
        m_in = m_in & (splits == 1)
        m_counted = m_counted & m_in
    store_row_results(
        p_hidden, p_item, p_bias, p_log_weight, p_history_weight, p_row_ids, p_history_items, p_loss, p_lse, p_peak,
        p_shift, p_average_dot, p_average,
        rows, m_in, m_counted, target, m_target, history_first, history_end, peak, l, kept, average_dot, average,
        scale, softcap, catalog, positive_weight, draw_weight, own_d, dim,
        HAS_BIAS, HAS_SOFTCAP, CORRECTION, HAS_HISTORY, BINARY, SCALE_GRAD, IS_SHARD, BLOCK_D,
    )  # fmt: skip
