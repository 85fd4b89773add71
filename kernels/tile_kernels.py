"""Loss and item gradient where a tile of rows shares its candidates, so that scores are matrix products.

Serves grouped draws, every item, every item with a membership mask (independent draws of more than half the catalog) and explicit
ids shared by all rows. Suffixes of shape comments: M rows of a tile, B candidates of a tile, D width.
"""

import triton
import triton.language as tl

from .permutation_kernels import permute
from .score_kernels import cap, exp, finish_rows

GROUPED = tl.constexpr(0)
ALL = tl.constexpr(1)
MEMBER = tl.constexpr(2)
SHARED = tl.constexpr(3)


@triton.jit
def candidate_ids(p_ids, position, num_candidates, num_items, SOURCE: tl.constexpr):
    """(item ids, which of them are candidates, which are malformed) at ``position`` of the candidate list."""
    inside = position < num_candidates
    ids = position
    if SOURCE == GROUPED or SOURCE == SHARED:
        ids = tl.load(p_ids + position, mask=inside, other=-1)
    malformed = inside & ((ids < -1) | (ids >= num_items))
    inside = inside & (ids >= 0) & (ids < num_items)
    return tl.where(inside, ids, 0).to(tl.int32), inside, malformed


@triton.jit
def membership(ids, slot, p_keys, num_items, negatives, shift, b, HALVES: tl.constexpr):
    """Whether independent row ``slot`` (M, 1) drew item ``ids`` (1, B) among its first K positions of a round of its own."""
    x = ids + slot * 0
    return permute(x, num_items, shift, b, p_keys + slot * HALVES, HALVES, False, True) < negatives


@triton.jit
def load_rows(p, rows, mask, first_d, dim, BLOCK_D: tl.constexpr):
    """A (rows, BLOCK_D) tile of a row-major matrix of width ``dim``; zeros outside."""
    d = first_d + tl.arange(0, BLOCK_D)
    return tl.load(p + rows.to(tl.int64)[:, None] * dim + d[None, :], mask=mask[:, None] & (d < dim)[None, :], other=0.0)


@triton.jit
def tile_scores(
    p_hidden, p_item, p_bias, rows, m_rows, ids, m_ids, dim, scale, softcap, own_d,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, NUM_D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(capped scores, their slopes, dot products) (M, B) in fp32, with the tiles' own chunk of the width: hidden (M, D) and items (B, D)."""
    own_hidden = load_rows(p_hidden, rows, m_rows, own_d, dim, BLOCK_D)
    own_item = load_rows(p_item, ids, m_ids, own_d, dim, BLOCK_D).to(own_hidden.dtype)
    if NUM_D == 1:
        dot = tl.dot(own_hidden, tl.trans(own_item), input_precision=PRECISION)
    else:
        dot = tl.zeros((rows.shape[0], ids.shape[0]), tl.float32)
        for chunk in range(NUM_D):
            hidden = load_rows(p_hidden, rows, m_rows, chunk * BLOCK_D, dim, BLOCK_D)
            item = load_rows(p_item, ids, m_ids, chunk * BLOCK_D, dim, BLOCK_D).to(hidden.dtype)
            dot = tl.dot(hidden, tl.trans(item), dot, input_precision=PRECISION)
    x = dot * scale
    if HAS_BIAS:
        x += tl.load(p_bias + ids, mask=m_ids, other=0.0).to(tl.float32)[None, :]
    s, slope = cap(x, softcap, HAS_SOFTCAP)
    return s, slope, dot, own_hidden, own_item


@triton.jit
def positive_score(
    p_hidden, p_item, p_bias, rows, m_rows, target, m_target, dim, scale, softcap,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, NUM_D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(capped score, its slope, dot product) (M,) of each row's target, in fp32; NaN where a counted row's target is out of range."""
    dot = tl.zeros((rows.shape[0],), tl.float32)
    for chunk in range(NUM_D):
        hidden = load_rows(p_hidden, rows, m_rows, chunk * BLOCK_D, dim, BLOCK_D)
        item = load_rows(p_item, target, m_target, chunk * BLOCK_D, dim, BLOCK_D).to(hidden.dtype)
        dot += tl.sum(hidden.to(tl.float32) * item.to(tl.float32), 1)
    x = dot * scale
    if HAS_BIAS:
        x += tl.load(p_bias + target, mask=m_target, other=0.0).to(tl.float32)
    s, slope = cap(x, softcap, HAS_SOFTCAP)
    return tl.where(m_rows & ~m_target, float("nan"), s), slope, dot


@triton.jit
def load_targets(p_target, rows, m_rows, num_items):
    """(targets as int32, which are real items) of rows; -1 where there is none."""
    target = tl.load(p_target + rows, mask=m_rows, other=-1).to(tl.int64)
    m_target = m_rows & (target >= 0) & (target < num_items)
    return tl.where(m_target, target, -1).to(tl.int32), m_target


@triton.jit
def store_row_results(
    p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average, rows, m_in, m_counted, m, l, kept, average_dot, average,
    z_positive, num_items, own_d, dim, SCALE_GRAD: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Finish and store rows; ignored ones (in the table, not counted) get zeros."""
    loss, lse, peak, shift = finish_rows(m, l, kept, z_positive, num_items)
    average = tl.where(m_counted[:, None] & (kept > 0)[:, None], average * exp(-shift)[:, None], 0.0)
    d = own_d + tl.arange(0, BLOCK_D)
    p_tile = p_average + rows.to(tl.int64)[:, None] * dim + d[None, :]
    tl.store(p_tile, average.to(p_average.dtype.element_ty), mask=m_in[:, None] & (d < dim)[None, :])
    first_chunk = m_in & (own_d + tl.zeros_like(rows) == 0)
    tl.store(p_loss + rows, tl.where(m_counted, loss, 0.0), mask=first_chunk)
    tl.store(p_lse + rows, tl.where(m_counted, lse, 0.0), mask=first_chunk)
    tl.store(p_peak + rows, tl.where(m_counted, peak, 0.0), mask=first_chunk)
    tl.store(p_shift + rows, tl.where(m_counted, shift, 0.0), mask=first_chunk)
    if SCALE_GRAD:
        tl.store(p_average_dot + rows, tl.where(m_counted, average_dot * exp(-shift), 0.0), mask=first_chunk)


@triton.jit
def tile_forward_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_ids, p_rows, p_count, p_group_blocks, p_keys,
    p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average, p_part_rows, p_part_average,
    num_rows, num_items, dim, num_candidates, slots, slots_per_split, block, group_size, last_block, softcap,
    item_shift, item_b, negatives,
    SOURCE: tl.constexpr, HAS_BLOCKS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    REMOVE_HITS: tl.constexpr, SCALE_GRAD: tl.constexpr, SPLIT: tl.constexpr, ITEM_HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of rows walks its candidates with a running softmax and accumulates their weighted average."""
    pid, own_chunk, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    own_d = own_chunk * BLOCK_D
    slot_m = pid * BLOCK_M + tl.arange(0, BLOCK_M)
    m_in = slot_m < num_rows
    count = tl.load(p_count)
    m_counted = slot_m < count
    rows = tl.load(p_rows + slot_m, mask=m_in, other=0)
    target, m_target = load_targets(p_target, rows, m_counted, num_items)
    scale = tl.load(p_scale)
    group = (pid * BLOCK_M) // group_size

    m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    l = tl.zeros((BLOCK_M,), tl.float32)
    kept = tl.zeros((BLOCK_M,), tl.float32)
    average_dot = tl.zeros((BLOCK_M,), tl.float32)
    average = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    first_slot = split * slots_per_split
    end_slot = tl.minimum(first_slot + slots_per_split, slots)
    end_slot = tl.where(pid * BLOCK_M < count, end_slot, first_slot)
    for slot in range(first_slot, end_slot):
        offset = tl.arange(0, BLOCK_B)
        start = slot * block
        if HAS_BLOCKS:
            start = tl.load(p_group_blocks + group * slots + slot) * block
        width = tl.where(slot == slots - 1, last_block, block)
        end = tl.minimum(start + width, num_candidates)
        ids, m_ids, malformed = candidate_ids(p_ids, start + offset, tl.where(offset < width, end, 0), num_items, SOURCE)
        s, slope, dot, hidden, item = tile_scores(
            p_hidden, p_item, p_bias, rows, m_counted, ids, m_ids, dim, scale, softcap, own_d,
            HAS_BIAS, HAS_SOFTCAP, NUM_D, BLOCK_D, PRECISION,
        )  # fmt: skip
        keep = m_ids[None, :] & m_counted[:, None]
        if REMOVE_HITS:
            keep = keep & (ids[None, :] != target[:, None])
        else:  # drops nothing; Triton 3.6 fails to lay out a mask without a comparison of rows with candidates
            keep = keep & (ids[None, :] > target[:, None] - num_items)
        if SOURCE == MEMBER:
            keep = keep & membership(ids[None, :], slot_m[:, None], p_keys, num_items, negatives, item_shift, item_b, ITEM_HALVES)
        z = tl.where(keep, s, float("-inf"))
        new_m = tl.maximum(m, tl.max(z, 1))
        finite_m = tl.where(new_m == float("-inf"), 0.0, new_m)  # nothing kept yet: avoid inf - inf
        p = exp(z - finite_m[:, None])
        fade = exp(m - finite_m)
        l = l * fade + tl.sum(p, 1)
        if SOURCE == SHARED:
            l = l + tl.where(tl.max(malformed.to(tl.int32), 0) > 0, float("nan"), 0.0)
        kept += tl.sum(tl.where(keep, 1.0, 0.0), 1)
        if HAS_SOFTCAP:
            p = tl.where(keep, p * slope, 0.0)
        if SCALE_GRAD:
            average_dot = average_dot * fade + tl.sum(p * dot, 1)
        average = tl.dot(p.to(item.dtype), item, average * fade[:, None], input_precision=PRECISION)
        m = new_m

    if SPLIT:
        part = split * num_rows + slot_m
        d = own_d + tl.arange(0, BLOCK_D)
        m_store = m_in & (own_chunk + tl.zeros_like(slot_m) == 0)
        tl.store(p_part_rows + part * 4, m, mask=m_store)
        tl.store(p_part_rows + part * 4 + 1, l, mask=m_store)
        tl.store(p_part_rows + part * 4 + 2, kept, mask=m_store)
        tl.store(p_part_rows + part * 4 + 3, average_dot, mask=m_store)
        tl.store(p_part_average + part.to(tl.int64)[:, None] * dim + d[None, :], average, mask=m_in[:, None] & (d < dim)[None, :])
    else:
        z_positive, slope_positive, dot_positive = positive_score(
            p_hidden, p_item, p_bias, rows, m_counted, target, m_target, dim, scale, softcap,
            HAS_BIAS, HAS_SOFTCAP, NUM_D, BLOCK_D,
        )  # fmt: skip
        store_row_results(
            p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average, rows, m_in, m_counted, m, l, kept, average_dot, average,
            z_positive, num_items, own_d, dim, SCALE_GRAD, BLOCK_D,
        )  # fmt: skip


@triton.jit
def add_product(accumulator, a, b, PRECISION: tl.constexpr):
    """accumulator + a^T b for fp32 ``a`` (K, M) and ``b`` (K, D) of any dtype, as ``b``'s matrix product.

    fp16 would lose probabilities times 1 / N below its range: the tile is scaled by a power of two before the cast.
    """
    if b.dtype == tl.float16:
        largest = tl.max(tl.max(tl.abs(a), 1), 0)
        power = tl.where(largest > 0, tl.exp2(-tl.ceil(tl.log2(tl.where(largest > 0, largest, 1.0)))), 1.0)
        return accumulator + tl.dot(tl.trans((a * power).to(tl.float16)), b) / power
    return tl.dot(tl.trans(a.to(b.dtype)), b, accumulator, input_precision=PRECISION)


@triton.jit
def tile_item_grad_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_ids, p_rows, p_count, p_block_groups, p_keys,
    p_peak, p_shift, p_row_grad, p_positive_grad, p_sorted_keys, p_sorted_rows, p_starts, p_sums,
    p_item_grad, p_bias_grad, p_part_grad, p_part_bias,
    num_rows, num_items, dim, num_candidates, block, drawn_blocks, last_drawn, last_block, group_size, visits, visits_per_split,
    softcap, item_shift, item_b, negatives,
    SOURCE: tl.constexpr, HAS_BLOCKS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    REMOVE_HITS: tl.constexpr, SPLIT: tl.constexpr, ITEM_HALVES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr, BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of candidates walks the rows that drew it, adds its positives and writes its gradient rows once."""
    pid, own_chunk, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    own_d = own_chunk * BLOCK_D
    scale = tl.load(p_scale)
    count = tl.load(p_count)
    sum_width = tl.full((), 1, tl.int64) * (dim + 1)
    offset = tl.arange(0, BLOCK_B)
    position = pid * block + offset
    ids, m_ids, malformed = candidate_ids(p_ids, position, tl.where(offset < block, num_candidates, 0), num_items, SOURCE)
    grad = tl.zeros((BLOCK_B, BLOCK_D), tl.float32)
    bias_grad = tl.zeros((BLOCK_B,), tl.float32)

    first_visit = split * visits_per_split
    end_visit = tl.minimum(first_visit + visits_per_split, visits)
    end_visit = tl.where(pid < drawn_blocks, end_visit, first_visit)
    for visit in range(first_visit, end_visit):
        if HAS_BLOCKS:
            code = tl.load(p_block_groups + pid * visits + visit)
            first_row = tl.where(code < 0, count, (code >> 1) * group_size)
            width = tl.where((code & 1) == 1, last_block, block)
            end_row = tl.minimum(first_row + group_size, count)
        else:
            first_row = visit * group_size
            width = tl.where(pid == last_drawn, last_block, block)
            end_row = tl.minimum(first_row + group_size, count)
        for first_m in range(first_row, end_row, BLOCK_M):
            slot_m = first_m + tl.arange(0, BLOCK_M)
            m_rows = slot_m < end_row
            rows = tl.load(p_rows + slot_m, mask=m_rows, other=0)
            target, m_target = load_targets(p_target, rows, m_rows, num_items)
            s, slope, dot, hidden, item = tile_scores(
                p_hidden, p_item, p_bias, rows, m_rows, ids, m_ids, dim, scale, softcap, own_d,
                HAS_BIAS, HAS_SOFTCAP, NUM_D, BLOCK_D, PRECISION,
            )  # fmt: skip
            keep = (m_ids & (offset < width))[None, :] & m_rows[:, None]
            if REMOVE_HITS:
                keep = keep & (ids[None, :] != target[:, None])
            if SOURCE == MEMBER:
                keep = keep & membership(
                    ids[None, :], slot_m[:, None], p_keys, num_items, negatives, item_shift, item_b, ITEM_HALVES
                )
            peak = tl.load(p_peak + rows, mask=m_rows, other=0.0)
            shift = tl.load(p_shift + rows, mask=m_rows, other=0.0)
            row_grad = tl.load(p_row_grad + rows, mask=m_rows, other=0.0)
            a = row_grad[:, None] * exp((s - peak[:, None]) - shift[:, None])
            if HAS_SOFTCAP:
                a = a * slope
            a = tl.where(keep, a, 0.0)
            grad = add_product(grad, a, hidden, PRECISION)
            if HAS_BIAS:
                bias_grad += tl.sum(a, 0)

    d = own_d + tl.arange(0, BLOCK_D)
    if SPLIT:
        m_slots = (offset < block) & (position < num_candidates)
        part = split * num_candidates + position
        tl.store(p_part_grad + part.to(tl.int64)[:, None] * dim + d[None, :], grad, mask=m_slots[:, None] & (d < dim)[None, :])
        if HAS_BIAS:
            tl.store(p_part_bias + part, bias_grad, mask=m_slots & (own_chunk + offset * 0 == 0))
    else:
        first_p = tl.load(p_starts + pid)
        end_p = tl.load(p_starts + pid + 1)
        for chunk in range(first_p // BLOCK_P, tl.cdiv(end_p, BLOCK_P)):
            i = chunk * BLOCK_P + tl.arange(0, BLOCK_P)
            m_i = (i >= first_p) & (i < end_p)
            local = tl.load(p_sorted_keys + i, mask=m_i, other=-1) - pid * block
            only = tl.load(p_sorted_keys + tl.minimum((chunk + 1) * BLOCK_P, num_rows) - 1)
            if (tl.load(p_sorted_keys + chunk * BLOCK_P) == only) & ((chunk + 1) * BLOCK_P <= num_rows):
                # the whole chunk belongs to one popular item: its sum was taken in parallel
                total = tl.load(p_sums + chunk * sum_width + d, mask=d < dim, other=0.0)
                is_item = (offset == only - pid * block).to(tl.float32)
                grad += is_item[:, None] * total[None, :]
                if HAS_BIAS:
                    bias_grad += is_item * tl.load(p_sums + chunk * sum_width + dim)
            else:
                rows = tl.load(p_sorted_rows + i, mask=m_i, other=0).to(tl.int32)
                hidden = load_rows(p_hidden, rows, m_i, own_d, dim, BLOCK_D)
                weight = tl.load(p_positive_grad + rows, mask=m_i, other=0.0)
                a = tl.where(local[:, None] == offset[None, :], weight[:, None], 0.0)
                grad = add_product(grad, a, hidden, PRECISION)
                if HAS_BIAS:
                    bias_grad += tl.sum(a, 0)
        p_tile = p_item_grad + ids.to(tl.int64)[:, None] * dim + d[None, :]
        tl.store(p_tile, (grad * scale).to(p_item_grad.dtype.element_ty), mask=m_ids[:, None] & (d < dim)[None, :])
        if HAS_BIAS:
            tl.store(p_bias_grad + ids, bias_grad.to(p_bias_grad.dtype.element_ty), mask=m_ids & (own_chunk + offset * 0 == 0))
