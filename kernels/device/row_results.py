"""Device functions on rows that all loss kernels share: loading them, scoring their targets, finishing and storing
their results."""

import triton
import triton.language as tl

from .history import catalog_ids, history_mass
from .scores import cap, exp, finish_binary_rows, finish_rows

UNCORRECTED = tl.constexpr(0)  # draws stand for a fixed number of items each
UNIFORM = tl.constexpr(1)  # draws stand for the V - 1 other items
WEIGHTED = tl.constexpr(2)  # items weigh 1 / (V q): draws stand for V (1 - q_t)
ELSEWHERE = tl.constexpr(-2)  # the target of rows whose positive is another shard's, see ``plan.problem``


@triton.jit
def split_tiles(count, slots, programs, BLOCK_M: tl.constexpr, MOST: tl.constexpr):
    """(tiles with rows that count, parts of their walks, slots of a part), so that up to ``programs`` parts run at a
    time."""
    tiles = tl.maximum(tl.cdiv(count, BLOCK_M), 1)
    each = tl.cdiv(slots, tl.maximum(tl.minimum(tl.minimum(programs // tiles, slots), MOST), 1))
    return tiles, tl.cdiv(slots, each), each


@triton.jit
def load_rows(p, rows, mask, first_d, dim: tl.constexpr, BLOCK_D: tl.constexpr):
    """A (rows, BLOCK_D) tile of a row-major matrix of width ``dim``; zeros outside. ``first_d`` is a multiple of
    BLOCK_D."""
    d = first_d + tl.arange(0, BLOCK_D)
    p_tile = p + rows.to(tl.int64)[:, None] * dim + d[None, :]
    if dim % BLOCK_D == 0:
        return tl.load(p_tile, mask=mask[:, None], other=0.0)
    return tl.load(p_tile, mask=mask[:, None] & (d < dim)[None, :], other=0.0)


@triton.jit
def load_all_rows(p, rows, first_d, dim: tl.constexpr, BLOCK_D: tl.constexpr):
    """``load_rows`` where every row exists."""
    d = first_d + tl.arange(0, BLOCK_D)
    p_tile = p + rows.to(tl.int64)[:, None] * dim + d[None, :]
    if dim % BLOCK_D == 0:
        return tl.load(p_tile)
    return tl.load(p_tile, mask=(d < dim)[None, :], other=0.0)


@triton.jit
def positive_score(
    p_hidden, p_item, p_bias, rows, m_rows, target, m_target, dim: tl.constexpr, scale, softcap,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(capped score, its slope, dot product) (M,) of each row's target, in fp32; NaN where a counted row's target is
    out of range."""
    dot = tl.zeros((rows.shape[0],), tl.float32)
    CHUNK_D: tl.constexpr = min(BLOCK_D, 64)  # few registers: callers hold an accumulator
    for first_d in range(0, dim, CHUNK_D):
        hidden = load_rows(p_hidden, rows, m_rows, first_d, dim, CHUNK_D)
        item = load_rows(p_item, target, m_target, first_d, dim, CHUNK_D).to(hidden.dtype)
        dot += tl.sum(hidden.to(tl.float32) * item.to(tl.float32), 1)
    x = dot * scale
    if HAS_BIAS:
        x += tl.load(p_bias + target, mask=m_target, other=0.0).to(tl.float32)
    s, slope = cap(x, softcap, HAS_SOFTCAP)
    return tl.where(m_rows & ~m_target, float("nan"), s), slope, dot


@triton.jit
def load_targets(p_target, rows, m_rows, num_items):
    """(targets as int32, which are real items) of rows; ELSEWHERE or -1 where there is none."""
    target = tl.load(p_target + rows, mask=m_rows, other=-1).to(tl.int64)
    m_target = m_rows & (target >= 0) & (target < num_items)
    return tl.where(m_target | (target == ELSEWHERE), target, -1).to(tl.int32), m_target


@triton.jit
def load_histories(p_history_first, p_history_end, rows, HAS_HISTORY: tl.constexpr):
    """The ranges (M,) of rows' own items; empty without histories."""
    first = rows * 0
    end = first
    if HAS_HISTORY:
        first = tl.load(p_history_first + rows)
        end = tl.load(p_history_end + rows)
    return first, end


@triton.jit
def row_mass(
    p_log_weight, p_history_weight, p_row_ids, p_history_items, first, end, target, m_target, kept, catalog,
    draw_weight,
    CORRECTION: tl.constexpr, HAS_HISTORY: tl.constexpr, IS_SHARD: tl.constexpr,
):  # fmt: skip
    """What the kept draws (M,) of rows stand for together, in items."""
    mass = kept * draw_weight
    if CORRECTION != UNCORRECTED:
        mass = tl.zeros_like(kept) + (catalog - 1)
        if CORRECTION == WEIGHTED:
            mass = catalog - exp(-tl.load(p_log_weight + target, mask=m_target, other=0.0))
        if IS_SHARD:
            mass = tl.where(target == ELSEWHERE, tl.zeros_like(mass) + catalog, mass)
        if HAS_HISTORY:
            item = catalog_ids(p_row_ids, target, m_target)
            p_weight = p_log_weight
            if p_history_weight is not None:
                p_weight = p_history_weight
            own = history_mass(p_history_items, p_weight, first, end, item, catalog, CORRECTION == WEIGHTED, 32)
            mass = tl.maximum(mass - own, 0.0)
    return mass


@triton.jit
def store_row_results(
    p_hidden, p_item, p_bias, p_log_weight, p_history_weight, p_row_ids, p_history_items, p_loss, p_lse, p_peak,
    p_shift, p_average_dot, p_average,
    rows, m_in, m_counted, target, m_target, history_first, history_end, peak, l, kept, average_dot, average,
    scale, softcap, catalog, positive_weight, draw_weight, own_d, dim: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, CORRECTION: tl.constexpr, HAS_HISTORY: tl.constexpr,
    BINARY: tl.constexpr,
    SCALE_GRAD: tl.constexpr, IS_SHARD: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Score the targets of rows, finish and store them; ignored ones (in the table, not counted) get zeros."""
    z_positive, _slope, _dot = positive_score(
        p_hidden, p_item, p_bias, rows, m_counted, target, m_target, dim, scale, softcap, HAS_BIAS, HAS_SOFTCAP, BLOCK_D
    )
    if IS_SHARD:
        z_positive = tl.where(m_counted & (target == ELSEWHERE), float("-inf"), z_positive)
    if HAS_HISTORY:  # of a user that there is not
        z_positive = tl.where(history_end < history_first, float("nan"), z_positive)
    mass = row_mass(
        p_log_weight,
        p_history_weight,
        p_row_ids,
        p_history_items,
        history_first,
        history_end,
        target,
        m_target,
        kept,
        catalog,
        draw_weight,
        CORRECTION,
        HAS_HISTORY,
        IS_SHARD,
    )
    if BINARY:
        loss, lse, peak, shift = finish_binary_rows(l, kept, z_positive, positive_weight)
        factor = shift
    else:
        joined = z_positive
        if IS_SHARD:  # beside a positive of no weight
            joined = tl.full(z_positive.shape, float("-inf"), tl.float32)
        loss, lse, peak, shift = finish_rows(peak, l, kept, joined, mass)
        if IS_SHARD:
            loss = z_positive
        factor = exp(-shift)
    # the average of no draws is 0 anyway; asked like this, ptxas schedules the loop of gathered rows 5% better
    average = tl.where((m_counted & (kept > 0))[:, None], average * factor[:, None], 0.0)
    d = own_d + tl.arange(0, BLOCK_D)
    p_tile = p_average + rows.to(tl.int64)[:, None] * dim + d[None, :]
    tl.store(p_tile, average.to(p_average.dtype.element_ty), mask=m_in[:, None] & (d < dim)[None, :])
    first_chunk = m_in & (own_d + tl.zeros_like(rows) == 0)
    tl.store(p_loss + rows, tl.where(m_counted, loss, 0.0), mask=first_chunk)
    tl.store(p_lse + rows, tl.where(m_counted, lse, 0.0), mask=first_chunk)
    tl.store(p_peak + rows, tl.where(m_counted, peak, 0.0), mask=first_chunk)
    tl.store(p_shift + rows, tl.where(m_counted, shift, 0.0), mask=first_chunk)
    if SCALE_GRAD:
        tl.store(p_average_dot + rows, tl.where(m_counted, average_dot * factor, 0.0), mask=first_chunk)
