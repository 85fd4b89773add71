"""Kernels over rows: joining split partition sums, the input gradient, and sums over popular targets."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .row_results import load_histories, load_rows, load_targets, positive_score, split_tiles, store_row_results
from .scores import LOWEST_PEAK, exp, one_minus_exp_minus, sigmoid


@triton.jit(do_not_specialize=ROW_NUMBERS)
def combine_forward_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_log_weight, p_history_weight, p_row_ids, p_history_items,
    p_history_first, p_history_end, p_rows, p_count,
    p_part_rows, p_part_average,
    p_loss, p_lse, p_peak, p_shift, p_average_dot, p_average,
    num_rows, num_items, catalog, dim: tl.constexpr, slots, parallel, softcap, positive_weight, draw_weight,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, CORRECTION: tl.constexpr, HAS_HISTORY: tl.constexpr,
    BINARY: tl.constexpr,
    SCALE_GRAD: tl.constexpr, IS_SHARD: tl.constexpr, TILE_M: tl.constexpr, MOST_SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
):  # fmt: skip
    """Join the parts of tiles of TILE_M rows in their order, and finish these rows; nothing where walks were whole."""
    count = tl.load(p_count)
    tiles, splits, _each = split_tiles(count, slots, parallel, TILE_M, MOST_SPLITS)
    if splits > 1:
        slot_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
        own_d = tl.program_id(1) * BLOCK_D
        m_in = slot_m < num_rows
        m_counted = slot_m < count
        rows = tl.load(p_rows + slot_m, mask=m_in, other=0)
        target, m_target = load_targets(p_target, rows, m_counted, num_items)
        peak = tl.full((BLOCK_M,), LOWEST_PEAK, tl.float32)
        l = tl.zeros((BLOCK_M,), tl.float32)
        kept = tl.zeros((BLOCK_M,), tl.float32)
        average_dot = tl.zeros((BLOCK_M,), tl.float32)
        average = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for split in range(splits):
            part = split * tiles * TILE_M + slot_m
            part_peak = tl.load(p_part_rows + part * 4, mask=m_counted, other=LOWEST_PEAK)
            new_peak = tl.maximum(peak, part_peak)
            fade, part_fade = tl.exp2(peak - new_peak), tl.exp2(part_peak - new_peak)
            l = l * fade + tl.load(p_part_rows + part * 4 + 1, mask=m_counted, other=0.0) * part_fade
            kept += tl.load(p_part_rows + part * 4 + 2, mask=m_counted, other=0.0)
            average_dot = (
                average_dot * fade + tl.load(p_part_rows + part * 4 + 3, mask=m_counted, other=0.0) * part_fade
            )
            part_average = load_rows(p_part_average, part, m_counted, own_d, dim, BLOCK_D)
            average = average * fade[:, None] + part_average * part_fade[:, None]
            peak = new_peak
        history_first, history_end = load_histories(p_history_first, p_history_end, rows, HAS_HISTORY)
        store_row_results(
            p_hidden, p_item, p_bias, p_log_weight, p_history_weight, p_row_ids, p_history_items, p_loss, p_lse, p_peak,
            p_shift, p_average_dot, p_average,
            rows, m_in, m_counted, target, m_target, history_first, history_end, peak, l, kept, average_dot, average,
            tl.load(p_scale), softcap, catalog, positive_weight, draw_weight, own_d, dim,
            HAS_BIAS, HAS_SOFTCAP, CORRECTION, HAS_HISTORY, BINARY, SCALE_GRAD, IS_SHARD, BLOCK_D,
        )  # fmt: skip


@triton.jit(do_not_specialize=ROW_NUMBERS)
def input_grad_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_rows, p_count, p_positive_key, p_loss, p_peak, p_shift,
    p_average_dot, p_average,
    p_grad_loss, p_grad_lse, p_input_grad, p_slot_row, p_slot_peak, p_slot_weight, p_slot_target, p_positive_grad,
    p_scale_grad,
    num_rows, num_slots, num_items, dim: tl.constexpr, softcap, positive_weight, grad_loss_stride,
    BY_SLOT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, BINARY: tl.constexpr,
    SCALE_GRAD: tl.constexpr, IS_SHARD: tl.constexpr,
    HAS_GRAD_LSE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, NUM_D: tl.constexpr,
):  # fmt: skip
    """dE = scale ((u + v) A + w c_t) with A the average over negatives and w = (v p_0 - u (1 - p_0)) h_t.

    BINARY: w = -u positive_weight sigmoid(-s_t) h_t / (1 + m), and there is no v. IS_SHARD: u and v are the gradients
    of the positive's score and of the negatives' logsumexp: w = u h_t, and v in place of u + v. Keeping the positive
    out of A leaves 1 - p_0 = 1 - exp(-loss) exact however good the model is. Also stores what the item gradient reads:
    w of each row and, for each slot (with BY_SLOT false for each row), the row, the position of its target, its peak
    and the factor (u + v) exp(-shift) that turns exp(s_j) / 2^peak into a score's gradient; and each row's part of the
    gradient of the scale. Slots without a row that counts repeat the last one that does, with a factor of 0.
    """
    slot = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_in = slot < num_rows
    count = tl.load(p_count)
    m_counted = slot < count
    n = tl.load(p_rows + slot, mask=m_in, other=0)
    item, m_item = load_targets(p_target, n, m_counted, num_items)
    loss = tl.load(p_loss + n, mask=m_counted, other=0.0)
    u = tl.load(p_grad_loss + n * grad_loss_stride, mask=m_counted, other=0.0)
    v = tl.zeros_like(u)
    if HAS_GRAD_LSE:
        v = tl.load(p_grad_lse + n, mask=m_counted, other=0.0)
    peak = tl.load(p_peak + n, mask=m_counted, other=0.0)
    shift = tl.load(p_shift + n, mask=m_counted, other=0.0)
    if BINARY:
        positive_grad = -u * positive_weight * sigmoid(-peak) * shift
        factor = shift
    else:
        positive_grad = v * exp(-loss) - u * one_minus_exp_minus(loss)
        factor = exp(-shift)
    of_negatives = u + v
    if IS_SHARD:
        positive_grad, of_negatives = u, v
    if HAS_SOFTCAP or SCALE_GRAD:
        z_positive, slope, dot = positive_score(
            p_hidden, p_item, p_bias, n, m_counted, item, m_item, dim, tl.load(p_scale), softcap,
            HAS_BIAS, HAS_SOFTCAP, BLOCK_D,
        )  # fmt: skip
        positive_grad = tl.where(m_counted, positive_grad * slope, 0.0)
        if SCALE_GRAD:
            average_dot = tl.load(p_average_dot + n, mask=m_counted, other=0.0)
            tl.store(
                p_scale_grad + n, tl.where(m_counted, of_negatives * average_dot + positive_grad * dot, 0.0), mask=m_in
            )
    row_grad = tl.where(m_counted, of_negatives, 0.0)
    positive_grad = tl.where(m_counted, positive_grad, 0.0)
    at = slot if BY_SLOT else n
    m_at = slot < num_slots if BY_SLOT else m_in
    read = n
    if BY_SLOT:  # the last row that counts, among whose candidates an item's program is wherever it reads such a slot
        read = tl.load(p_rows + tl.minimum(slot, tl.maximum(count - 1, 0)), mask=m_at, other=0)
        tl.store(p_slot_row + at, read, mask=m_at)
    # where no row counts, no score is above the peak and the factor is 0: nobody needs a mask
    tl.store(p_slot_peak + at, tl.where(m_counted, peak, -LOWEST_PEAK), mask=m_at)
    tl.store(p_slot_weight + at, tl.where(m_counted, row_grad * factor, 0.0), mask=m_at)
    tl.store(p_slot_target + at, tl.load(p_positive_key + read, mask=m_at, other=0), mask=m_at)
    tl.store(p_positive_grad + n, positive_grad, mask=m_in)
    if p_input_grad is not None:
        scale = tl.load(p_scale)
        for chunk in range(NUM_D):
            first_d = chunk * BLOCK_D
            positive = (
                load_rows(p_item, item, m_item, first_d, dim, BLOCK_D).to(p_hidden.dtype.element_ty).to(tl.float32)
            )
            average = load_rows(p_average, n, m_counted, first_d, dim, BLOCK_D).to(tl.float32)
            grad = row_grad[:, None] * average + positive_grad[:, None] * positive
            d = first_d + tl.arange(0, BLOCK_D)
            p_tile = p_input_grad + n.to(tl.int64)[:, None] * dim + d[None, :]
            tl.store(p_tile, (grad * scale).to(p_input_grad.dtype.element_ty), mask=m_in[:, None] & (d < dim)[None, :])


@triton.jit(do_not_specialize=ROW_NUMBERS)
def popular_sums_kernel(
    p_hidden, p_positive_grad, p_sorted_keys, p_sorted_rows, p_sums,
    num_rows, dim: tl.constexpr, no_key, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum of w_n e_n, and of w_n behind it, over each chunk of sorted rows that has one target."""
    chunk, own_chunk = tl.program_id(0), tl.program_id(1)
    only = tl.load(p_sorted_keys + (chunk + 1) * BLOCK_P - 1)
    if (tl.load(p_sorted_keys + chunk * BLOCK_P) == only) & (only != no_key):
        i = chunk * BLOCK_P + tl.arange(0, BLOCK_P)
        rows = tl.load(p_sorted_rows + i).to(tl.int32)
        weight = tl.load(p_positive_grad + rows)
        hidden = load_rows(p_hidden, rows, i >= 0, own_chunk * BLOCK_D, dim, BLOCK_D).to(tl.float32)
        d = own_chunk * BLOCK_D + tl.arange(0, BLOCK_D)
        p_out = p_sums + chunk.to(tl.int64) * (dim + 1)
        tl.store(p_out + d, tl.sum(weight[:, None] * hidden, 0), mask=d < dim)
        if own_chunk == 0:
            tl.store(p_out + dim, tl.sum(weight, 0))
