"""Gradient of the item table where rows share candidates: each item's row is written once, with its negatives and
positives."""

import triton
import triton.language as tl

from .history import catalog_ids, in_history
from .item_store import store_item_grad
from .lists import FRESH
from .numbers import ROW_NUMBERS
from .row_results import load_all_rows, load_histories, load_rows
from .scores import LOG2E, add_product, cap, exp_from, sigmoid
from .tiles import LISTED, MEMBER, SHARED, add_other_chunks, candidate_ids, membership


@triton.jit
def load_positives(p_positive_grad, p_sorted_keys, p_sorted_rows, start, end, PART: tl.constexpr):
    """(sorted rows, the positions of their targets, their factors, which there are) from ``start`` on, PART at most."""
    i = start + tl.arange(0, PART)
    m_i = i < end
    rows = tl.load(p_sorted_rows + i, mask=m_i, other=0).to(tl.int32)
    keys = tl.load(p_sorted_keys + i, mask=m_i, other=-1)
    return rows, keys, tl.load(p_positive_grad + rows, mask=m_i, other=0.0), m_i


@triton.jit
def add_positives(
    grad, bias_grad, rows, keys, weight, m_rows, position, p_hidden, own_d, dim: tl.constexpr,
    HAS_BIAS: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add sum of w_n e_n over rows, whose targets lie at ``position`` (B,), to (B, D) gradients."""
    hidden = load_rows(p_hidden, rows, m_rows, own_d, dim, BLOCK_D)
    a = tl.where(position[:, None] == keys[None, :], weight[None, :], 0.0)
    grad = add_product(grad, a, hidden, PRECISION)
    if HAS_BIAS:
        bias_grad += tl.sum(a, 1)
    return grad, bias_grad


@triton.jit(do_not_specialize=ROW_NUMBERS)
def tile_item_grad_kernel(
    p_hidden, p_item, p_bias, p_scale, p_log_weight, p_list_weights, p_row_ids, p_history_items, p_history_first,
    p_history_end,
    p_ids, p_slot_row, p_count, p_group_blocks, p_visits, p_block_groups, p_keys,
    p_slot_peak, p_slot_weight, p_slot_target, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_item_grad, p_bias_grad, p_part_grad, p_part_bias, p_part_of_draw,
    num_rows, num_items, dim: tl.constexpr, num_candidates, block, drawn_blocks, last_drawn, last_block, slots,
    group_size, rounds,
    softcap, item_shift, item_b, negatives, first_column, num_columns,
    SOURCE: tl.constexpr, HAS_BLOCKS: tl.constexpr, DRAWN_ONLY: tl.constexpr, FULL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_LOG_WEIGHT: tl.constexpr, REMOVE_HITS: tl.constexpr, HAS_HISTORY: tl.constexpr,
    BINARY: tl.constexpr,
    SPLIT: tl.constexpr, ITEM_HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
    CHUNK: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of candidates walks the rows that drew it, adds its positives and writes its gradient rows once.

    DRAWN_ONLY: one program for each (group, slot) of a single round, so that blocks that nobody drew cost nothing here.
    LISTED: one program for each (group, block of the columns [first_column, first_column + num_columns) of its list).
    See ``find_parts_kernel`` for where gradients go.
    """
    program, own_chunk, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    own_d = own_chunk * BLOCK_D
    number = program
    if DRAWN_ONLY:
        number = tl.load(p_group_blocks + program)
    scale = tl.load(p_scale)
    count = tl.load(p_count)
    offset = tl.arange(0, BLOCK_B)
    position = number * block + offset
    end_position = num_candidates
    if SOURCE == LISTED:
        group = program // slots
        p_ids += group.to(tl.int64) * num_candidates
        position = first_column + program % slots * block + offset
        end_position = first_column + num_columns
    ids, m_ids, malformed = candidate_ids(
        p_ids, position, tl.where(offset < block, end_position, 0), num_items, SOURCE, False
    )
    item = load_rows(p_item, ids, m_ids, own_d, dim, BLOCK_D).to(p_hidden.dtype.element_ty)
    if HAS_BIAS:
        bias = tl.load(p_bias + ids, mask=m_ids, other=0.0).to(tl.float32)
    if HAS_LOG_WEIGHT:
        if SOURCE == LISTED:
            log_weight = tl.load(p_list_weights + group.to(tl.int64) * num_candidates + position, mask=m_ids, other=0.0)
        else:
            log_weight = tl.load(p_log_weight + ids, mask=m_ids, other=0.0)
    grad = tl.zeros((BLOCK_B, BLOCK_D), tl.float32)
    bias_grad = tl.zeros((BLOCK_B,), tl.float32)
    if not SPLIT:
        first = tl.load(p_starts + number)
        end = tl.load(p_starts + number + 1)
        if PART > 1:  # looked up before the loop over negatives, which hides the latency
            rows_p, keys_p, weight_p, m_p = load_positives(
                p_positive_grad, p_sorted_keys, p_sorted_rows, first, end, PART
            )

    tiles = tl.where(number < drawn_blocks, tl.cdiv(count, BLOCK_M), 0)
    if DRAWN_ONLY or SOURCE == LISTED:
        tiles = tl.where(program // slots * group_size < count, group_size // BLOCK_M, 0)
    elif HAS_BLOCKS:
        tiles = tl.load(p_visits + number, mask=number < drawn_blocks, other=0) * (group_size // BLOCK_M)
    first_tile = 0
    if SPLIT:  # every split gets its share of what there is, however few rows count
        tiles_per_split = tl.cdiv(tiles, tl.num_programs(2))
        first_tile = split * tiles_per_split
        tiles = tl.minimum(first_tile + tiles_per_split, tiles)
    code = 0
    if HAS_BLOCKS and not DRAWN_ONLY:
        p_codes = p_block_groups + tl.minimum(number, drawn_blocks - 1) * rounds
        code = tl.load(p_codes + first_tile // (group_size // BLOCK_M), mask=first_tile < tiles, other=0)
    for tile in range(first_tile, tiles):
        if DRAWN_ONLY:
            first_slot = program // slots * group_size + tile * BLOCK_M
            width = tl.where(program % slots == slots - 1, last_block, block)
        elif SOURCE == LISTED:
            first_slot = group * group_size + tile * BLOCK_M
            width = block
        elif HAS_BLOCKS:
            tiles_per_visit = group_size // BLOCK_M
            first_slot = (code >> 1) * group_size + (tile % tiles_per_visit) * BLOCK_M
            width = tl.where((code & 1) == 1, last_block, block)
            # looked up one tile ahead, so that gathering the rows waits for one load less
            code = tl.load(p_codes + tl.minimum(tile + 1, tiles - 1) // tiles_per_visit)
        else:
            first_slot = tile * BLOCK_M
            width = tl.where(number == last_drawn, last_block, block)
        # slots are padded to whole tiles with a row that counts, which weighs nothing there: nothing here needs a mask
        slot_m = first_slot + tl.arange(0, BLOCK_M)
        rows = tl.load(p_slot_row + slot_m)
        hidden = load_all_rows(p_hidden, rows, own_d, dim, BLOCK_D)
        # items are the rows of the product, so that their scores' gradients are the left operand of the next one as
        # they are
        dot = tl.dot(item, tl.trans(hidden), input_precision=PRECISION)
        if NUM_D > 1:
            dot = add_other_chunks(
                dot,
                p_item,
                ids,
                m_ids,
                p_hidden,
                rows,
                rows >= 0,
                own_chunk,
                dim,
                hidden.dtype,
                BLOCK_D,
                NUM_D,
                PRECISION,
            )
        peak = tl.load(p_slot_peak + slot_m)
        weight = tl.load(p_slot_weight + slot_m)
        if HAS_BIAS or HAS_SOFTCAP or HAS_LOG_WEIGHT or BINARY:
            x = dot * scale
            if HAS_BIAS:
                x += bias[:, None]
            s, slope = cap(x, softcap, HAS_SOFTCAP)
            if HAS_LOG_WEIGHT:
                s += log_weight[:, None]
            if BINARY:
                a = sigmoid(s)
            else:
                a = exp_from(s, peak[None, :])
            a *= weight[None, :]
            if HAS_SOFTCAP:
                a *= slope
        else:
            a = tl.exp2(tl.fma(dot, scale * LOG2E, -peak[None, :])) * weight[None, :]
        if REMOVE_HITS:
            target = tl.load(p_slot_target + slot_m)
            if SOURCE == SHARED or SOURCE == LISTED:
                a = tl.where(ids[:, None] != target[None, :], a, 0.0)
            else:
                a = tl.where(position[:, None] != target[None, :], a, 0.0)
        # places of the tile that no item has hold any number, or none: their rows of the product are never stored
        if not FULL:  # a select: where a score is not a candidate's, its exponential may be infinite
            a = tl.where((offset < width)[:, None], a, 0.0)
        if SOURCE == MEMBER:
            drawn = membership(
                ids[:, None], slot_m[None, :], p_keys, num_rows, num_items, negatives, item_shift, item_b, ITEM_HALVES
            )
            a = tl.where(drawn, a, 0.0)
        if HAS_HISTORY:
            history_first, history_end = load_histories(p_history_first, p_history_end, rows, HAS_HISTORY)
            known_by = catalog_ids(p_row_ids, ids, m_ids)
            known = in_history(p_history_items, history_first[None, :], history_end[None, :], known_by[:, None])
            a = tl.where(known, 0.0, a)
        if p_item_grad is not None:
            grad = add_product(grad, a, hidden, PRECISION)
        if HAS_BIAS:
            bias_grad += tl.sum(a, 1)

    if SPLIT:
        d = own_d + tl.arange(0, BLOCK_D)
        m_slots = (offset < block) & (position < num_candidates)
        part = split * num_candidates + position
        if SOURCE == LISTED:
            part = tl.load(p_part_of_draw + group.to(tl.int64) * num_candidates + position, mask=m_ids, other=0)
            store_item_grad(
                p_item_grad,
                p_bias_grad,
                grad,
                bias_grad,
                ids,
                m_ids & (part == FRESH),
                scale,
                own_d,
                dim,
                False,
                BLOCK_D,
            )
            m_slots = m_ids & (part != FRESH)
        if p_part_grad is not None:
            p_tile = p_part_grad + part.to(tl.int64)[:, None] * dim + d[None, :]
            tl.store(p_tile, grad, mask=m_slots[:, None] & (d < dim)[None, :])
        if p_part_bias is not None:
            tl.store(p_part_bias + part, bias_grad, mask=m_slots & (own_chunk + offset * 0 == 0))
    else:
        start = first
        if PART > 1:
            grad, bias_grad = add_positives(
                grad,
                bias_grad,
                rows_p,
                keys_p,
                weight_p,
                m_p,
                position,
                p_hidden,
                own_d,
                dim,
                HAS_BIAS,
                BLOCK_D,
                PRECISION,
            )
            start = first + PART
        d = own_d + tl.arange(0, BLOCK_D)
        while start < end:
            chunk_end = (start // CHUNK + 1) * CHUNK
            only = tl.load(p_sorted_keys + tl.minimum(chunk_end, num_rows) - 1)
            if (start % CHUNK == 0) & (chunk_end <= end) & (tl.load(p_sorted_keys + start) == only):
                # the whole chunk belongs to one popular item: its sum was taken in parallel
                p_sum = p_sums + (start // CHUNK).to(tl.int64) * (dim + 1)
                is_item = (position == only).to(tl.float32)
                grad += is_item[:, None] * tl.load(p_sum + d, mask=d < dim, other=0.0)[None, :]
                if HAS_BIAS:
                    bias_grad += is_item * tl.load(p_sum + dim)
                start = chunk_end
            elif PART == 1:  # beside so wide a gradient no product fits in the registers
                row = tl.load(p_sorted_rows + start).to(tl.int64)
                weight_b = tl.where(position == tl.load(p_sorted_keys + start), tl.load(p_positive_grad + row), 0.0)
                hidden_d = tl.load(p_hidden + row * dim + d, mask=d < dim, other=0.0).to(tl.float32)
                grad += weight_b[:, None] * hidden_d[None, :]
                if HAS_BIAS:
                    bias_grad += weight_b
                start += 1
            else:
                part_end = tl.minimum(chunk_end, end)
                rows_p, keys_p, weight_p, m_p = load_positives(
                    p_positive_grad, p_sorted_keys, p_sorted_rows, start, part_end, PART
                )
                grad, bias_grad = add_positives(
                    grad,
                    bias_grad,
                    rows_p,
                    keys_p,
                    weight_p,
                    m_p,
                    position,
                    p_hidden,
                    own_d,
                    dim,
                    HAS_BIAS,
                    BLOCK_D,
                    PRECISION,
                )
                start = tl.minimum(start + PART, chunk_end)
        store_item_grad(p_item_grad, p_bias_grad, grad, bias_grad, ids, m_ids, scale, own_d, dim, False, BLOCK_D)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def zero_item_grad_kernel(
    p_items, p_visits, p_item_grad, p_bias_grad, num_positions, dim: tl.constexpr, block, drawn_blocks,
    PERMUTED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
):  # fmt: skip
    """Zeros for the items that nobody drew, or not PERMUTED for all: BLOCK_B positions of the item permutation a
    program."""
    ids = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    m_ids = ids < num_positions
    if PERMUTED:
        number = ids // block
        visits = tl.load(p_visits + number, mask=number < drawn_blocks, other=0)
        ids = tl.load(p_items + ids, mask=m_ids, other=-1)
        m_ids = (ids >= 0) & (visits == 0)  # a row of a working set that is drawn has no position of its own
    zeros = tl.zeros((BLOCK_B, BLOCK_D), tl.float32)
    bias_zeros = tl.zeros((BLOCK_B,), tl.float32)
    for chunk in range(NUM_D):
        own_d = chunk * BLOCK_D
        store_item_grad(p_item_grad, p_bias_grad, zeros, bias_zeros, ids, m_ids, 1.0, own_d, dim, False, BLOCK_D)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def positive_item_grad_kernel(
    p_hidden, p_scale, p_items, p_visits, p_positive_grad, p_sorted_keys, p_sorted_rows, p_sums, p_item_grad,
    p_bias_grad,
    num_rows, num_positions, dim: tl.constexpr, block, drawn_blocks,
    PERMUTED: tl.constexpr, HAS_KNOWN: tl.constexpr, BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Gradient of the items that are targets and that nobody drew, or not PERMUTED of all targets, HAS_KNOWN beside
    what is there: the first sorted row of each such item sums all of them."""
    first, own_d = tl.program_id(0), tl.program_id(1) * BLOCK_D
    key = tl.load(p_sorted_keys + first)
    before = tl.load(p_sorted_keys + tl.maximum(first, 1) - 1)
    visits = 0
    if PERMUTED:
        number = key // block
        visits = tl.load(p_visits + number, mask=number < drawn_blocks, other=0)
    if (key < num_positions) & ((key != before) | (first == 0)) & (visits == 0):
        d = own_d + tl.arange(0, BLOCK_D)
        grad = tl.zeros((BLOCK_D,), tl.float32)
        bias_grad = tl.zeros((), tl.float32)
        start = first
        more = 1
        while more == 1:
            chunk_end = (start // CHUNK + 1) * CHUNK
            last = tl.load(p_sorted_keys + tl.minimum(chunk_end, num_rows) - 1)
            if (start % CHUNK == 0) & (last == key) & (chunk_end <= num_rows):
                p_sum = p_sums + (start // CHUNK).to(tl.int64) * (dim + 1)
                grad += tl.load(p_sum + d, mask=d < dim, other=0.0)
                bias_grad += tl.load(p_sum + dim)
                start = chunk_end
            else:
                i = start + tl.arange(0, PART)
                m_i = (i < chunk_end) & (i < num_rows)
                m_i = m_i & (tl.load(p_sorted_keys + i, mask=m_i, other=-1) == key)
                rows = tl.load(p_sorted_rows + i, mask=m_i, other=0).to(tl.int32)
                weight = tl.load(p_positive_grad + rows, mask=m_i, other=0.0)
                hidden = load_rows(p_hidden, rows, m_i, own_d, dim, BLOCK_D).to(tl.float32)
                grad += tl.sum(weight[:, None] * hidden, 0)
                bias_grad += tl.sum(weight, 0)
                start = tl.minimum(start + PART, chunk_end)
            following = tl.load(p_sorted_keys + tl.minimum(start, num_rows - 1))
            more = ((start < num_rows) & (following == key)).to(tl.int32)
        item = key
        if PERMUTED:
            item = tl.load(p_items + key)
        one = tl.arange(0, 1)
        store_item_grad(
            p_item_grad, p_bias_grad, grad[None, :], bias_grad + one, item + one, one == 0, tl.load(p_scale), own_d,
            dim, HAS_KNOWN, BLOCK_D,
        )  # fmt: skip
