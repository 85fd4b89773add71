"""Kernels of groups' lists of candidates: drawing them by slots, and adding up the item gradients of their partial
sums."""

import triton
import triton.language as tl

from .item_store import store_item_grad
from .numbers import ROW_NUMBERS
from .permutation import permute
from .search import lower_bound
from .tables import store_keys

FRESH = tl.constexpr(-1)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def slot_keys_kernel(p_seed, p_keys, halves, total, DOMAIN: tl.constexpr, BLOCK: tl.constexpr):
    """The keys of every (round, stratum)'s permutation of slots."""
    store_keys(p_seed, p_keys, tl.program_id(0) * BLOCK, tl.full((), DOMAIN, tl.int32), halves, total, BLOCK)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def slot_ids_kernel(
    p_keys, p_slot_ends, p_ids, num_items, total, negatives, columns, block, strata, width, groups_per_round, shift, b,
    HAS_ENDS: tl.constexpr, HALVES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The item of each (group, place) of a part of the lists, which have ``columns`` each: the one that owns the drawn
    slot, or not HAS_ENDS the slot itself; see ``draws/slots.py``."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < total
    group = (i // negatives).to(tl.int32)
    column = (i % negatives).to(tl.int32)
    stratum = column // block
    p_round_keys = p_keys + (group // groups_per_round * strata + stratum) * HALVES
    p_round_keys = tl.where(inside, p_round_keys, p_keys)
    place = (group % groups_per_round) * block + column % block
    item = stratum * width + permute(place, width, shift, b, p_round_keys, HALVES, False, False)
    if HAS_ENDS:
        low = tl.zeros((BLOCK,), tl.int32)
        item = lower_bound(
            p_slot_ends, low, low + num_items, item + 1
        )  # the first item whose slots end behind this one
    tl.store(p_ids + group.to(tl.int64) * columns + column, item, mask=inside)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def row_targets_kernel(
    p_target, p_rows, p_count, p_ids, num_places, num_items, group_size, columns, BLOCK: tl.constexpr
):
    """The targets of each group's rows, in the order of their places, as a part of its list; -1 where there is none."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_counted = place < tl.load(p_count)
    row = tl.load(p_rows + place, mask=m_counted, other=0)
    target = tl.load(p_target + row, mask=m_counted, other=-1).to(tl.int64)
    item = tl.where((target >= 0) & (target < num_items), target, -1).to(tl.int32)
    p_out = p_ids + (place // group_size).to(tl.int64) * columns + place % group_size
    tl.store(p_out, item, mask=place < num_places)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def describe_lists_kernel(
    p_ids, p_log_weight, p_keys, p_weights, num_draws, num_items, negatives, columns_per_pass,
    HAS_LOG_WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the draws of all lists are sorted by, behind the keys of rows: the pass that adds them up, then the item,
    empty ones last; and the items' log weights, minus infinity of empty ones."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_i = i < num_draws
    item = tl.load(p_ids + i, mask=m_i, other=-1)
    is_item = (item >= 0) & (item < num_items)
    own_pass = i % negatives // columns_per_pass
    tl.store(p_keys + i, tl.where(is_item, item, num_items).to(tl.int32) + (own_pass + 1) * (num_items + 1), mask=m_i)
    if HAS_LOG_WEIGHT:
        tl.store(p_weights + i, tl.load(p_log_weight + item, mask=m_i & is_item, other=float("-inf")), mask=m_i)


@triton.jit
def is_sorted_in(p_sorted, number, wanted):
    """Whether each of ``wanted`` occurs in a sorted array."""
    low = wanted * 0
    place = lower_bound(p_sorted, low, low + number, wanted)
    return tl.load(p_sorted + place, mask=place < number, other=-1) == wanted


@triton.jit(do_not_specialize=ROW_NUMBERS)
def find_parts_kernel(
    p_sorted_keys, p_sorted_places, p_part_of_draw, p_is_summed, num_draws, num_rows, num_items, draws_per_pass, passes,
    LOOKS_UP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Where the gradient of each place of the flattened lists goes: FRESH, to the item's gradient, where the item is
    drawn there only (none where not LOOKS_UP), else to the partial sums' row of its rank among the sorted draws of its
    pass.

    Also stores which sorted draws have such a row. Sorted keys are the rows' targets, then the draws pass by pass, all
    of one sort.
    """
    p_sorted_keys += num_rows
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_i = i < num_draws
    key = tl.load(p_sorted_keys + i, mask=m_i, other=-1)
    before = tl.load(p_sorted_keys + i - 1, mask=m_i & (i > 0), other=-1)
    after = tl.load(p_sorted_keys + i + 1, mask=i + 1 < num_draws, other=-1)
    alone = (key != before) & (key != after)
    if LOOKS_UP:
        own_pass = i // draws_per_pass
        item = tl.where(alone & m_i, key - (own_pass + 1) * (num_items + 1), 0)
        others = i < 0
        for number in range(passes):
            found = is_sorted_in(p_sorted_keys, num_draws, item + (number + 1) * (num_items + 1))
            others = others | (found & (own_pass != number))
        fresh = alone & (others == 0)
    else:
        fresh = i < 0
    draw = tl.load(p_sorted_places + num_rows + i, mask=m_i, other=0) - num_rows
    tl.store(p_part_of_draw + draw, tl.where(fresh, FRESH, i % draws_per_pass), mask=m_i)
    tl.store(p_is_summed + i, tl.where(fresh, 0, 1), mask=m_i)


@triton.jit
def add_segments(starts, value, other_starts, other_value):
    """Running sums that begin anew where a segment starts."""
    return starts | other_starts, tl.where(other_starts != 0, other_value, value + other_value)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def add_list_grad_kernel(
    p_scale, p_sorted_keys, p_is_summed, p_part_grad, p_part_bias, p_ends, p_item_grad, p_bias_grad,
    num_draws, num_items, dim: tl.constexpr, first_key,
    HAS_BIAS: tl.constexpr, HAS_KNOWN: tl.constexpr, PART: tl.constexpr, STEP: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """PART sorted draws, STEP at a time, add up the partial gradients of each item that begins and ends among them: its
    gradient, HAS_KNOWN beside what is there.

    Sums of an item that begins before, and of one that goes on behind, are kept for ``join_list_grad_kernel``, the
    bias's behind them; of an item that does both, as of one that begins before.
    """
    tile, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    start = tile * PART
    d = own_d + tl.arange(0, BLOCK_D)
    m_d = (d < dim)[None, :]
    scale = tl.load(p_scale)
    key_before = tl.load(p_sorted_keys + start - 1, mask=start > 0, other=-1)
    p_begin = p_ends + 2 * tile.to(tl.int64) * (dim + 1)
    carry = tl.zeros((BLOCK_D,), tl.float32)  # of the item that goes on behind a step
    bias_carry = tl.zeros((), tl.float32)
    for first in range(start, start + PART, STEP):
        i = first + tl.arange(0, STEP)
        m_i = i < num_draws
        key = tl.load(p_sorted_keys + i, mask=m_i, other=-1)
        before = tl.load(p_sorted_keys + i - 1, mask=m_i & (i > 0), other=-1)
        following = tl.load(p_sorted_keys + i + 1, mask=i + 1 < num_draws, other=-1)
        summed = m_i & (key - first_key < num_items) & (tl.load(p_is_summed + i, mask=m_i, other=0) > 0)
        parts = tl.zeros((STEP, BLOCK_D), tl.float32)
        if p_part_grad is not None:
            p_parts = p_part_grad + i.to(tl.int64)[:, None] * dim + d[None, :]
            parts = tl.load(p_parts, mask=summed[:, None] & m_d, other=0.0)
        starts = ((key != before) | (i == first)).to(tl.int32)
        carries_on = (i == first) & (key == before)  # nothing comes into the first step
        goes_on = summed & (i == first + STEP - 1) & (key == following)
        ends_here = summed & (key != following)
        whole = ends_here & (key != key_before)
        begins_before = ends_here & (key == key_before)
        parts += tl.where(carries_on[:, None], carry[None, :], 0.0)
        _, grad = tl.associative_scan((starts[:, None] + tl.zeros_like(parts).to(tl.int32), parts), 0, add_segments)
        carry = tl.sum(tl.where(goes_on[:, None], grad, 0.0), 0)
        tl.store(p_begin + d[None, :] + i[:, None] * 0, grad, mask=begins_before[:, None] & m_d)
        bias_grad = tl.zeros((STEP,), tl.float32)
        if p_part_bias is not None:
            first_chunk = own_d + i * 0 == 0
            part_bias = tl.load(p_part_bias + i, mask=summed, other=0.0) + tl.where(carries_on, bias_carry, 0.0)
            _, bias_grad = tl.associative_scan((starts, part_bias), 0, add_segments)
            bias_carry = tl.sum(tl.where(goes_on, bias_grad, 0.0), 0)
            tl.store(p_begin + dim + i * 0, bias_grad, mask=begins_before & first_chunk)
        item = tl.where(whole, key - first_key, 0)
        store_item_grad(p_item_grad, p_bias_grad, grad, bias_grad, item, whole, scale, own_d, dim, HAS_KNOWN, BLOCK_D)
    end = start + PART
    if end < num_draws:
        key = tl.load(p_sorted_keys + end - 1)
        if tl.load(p_sorted_keys + end) == key:  # of no use where it is no item
            p_kept = p_begin + tl.where(key == key_before, 0, dim + 1)
            tl.store(p_kept + d, carry, mask=d < dim)
            if HAS_BIAS:
                if own_d == 0:
                    tl.store(p_kept + dim, bias_carry)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def join_list_grad_kernel(
    p_scale, p_sorted_keys, p_is_summed, p_ends, p_item_grad, p_bias_grad, num_draws, num_items, dim: tl.constexpr,
    first_key,
    HAS_BIAS: tl.constexpr, PART: tl.constexpr, TILES: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The tile of sorted draws in which an item begins that goes on behind adds the sums of all its tiles, in order, to
    its gradient."""
    tile, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    end = (tile + 1) * PART
    if end < num_draws:
        key = tl.load(p_sorted_keys + end - 1)
        begins_here = (tile == 0) | (tl.load(p_sorted_keys + tl.maximum(tile * PART, 1) - 1) != key)
        summed = (key - first_key < num_items) & (tl.load(p_is_summed + end - 1) > 0)
        if begins_here & summed & (tl.load(p_sorted_keys + end) == key):
            d = own_d + tl.arange(0, BLOCK_D)
            p_own = p_ends + (2 * tile.to(tl.int64) + 1) * (dim + 1)
            grad = tl.load(p_own + d, mask=d < dim, other=0.0)
            bias_grad = tl.load(p_own + dim) if HAS_BIAS else 0.0
            start = tile + 1
            more = 1
            while more == 1:
                other = start + tl.arange(0, TILES)
                m_other = tl.load(p_sorted_keys + other * PART, mask=other * PART < num_draws, other=-1) == key
                p_other = p_ends + 2 * other.to(tl.int64) * (dim + 1)
                grad += tl.sum(
                    tl.load(p_other[:, None] + d[None, :], mask=m_other[:, None] & (d < dim)[None, :], other=0.0), 0
                )
                if HAS_BIAS:
                    bias_grad += tl.sum(tl.load(p_other + dim, mask=m_other, other=0.0), 0)
                start += TILES
                more = tl.min(m_other.to(tl.int32), 0)
            one = tl.arange(0, 1)
            store_item_grad(
                p_item_grad, p_bias_grad, grad[None, :], bias_grad + one, key - first_key + one, one == 0,
                tl.load(p_scale), own_d, dim, True, BLOCK_D,
            )  # fmt: skip
