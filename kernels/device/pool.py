"""Scores of a pool of items in each group of rows, from which its hardest negatives are chosen."""

import triton
import triton.language as tl

from .history import catalog_ids, in_history
from .numbers import ROW_NUMBERS
from .row_results import load_histories, load_rows, load_targets
from .scores import cap


@triton.jit(do_not_specialize=ROW_NUMBERS)
def pool_scores_kernel(
    p_hidden, p_item, p_bias, p_target, p_scale, p_row_ids, p_history_items, p_history_first, p_history_end, p_ids,
    p_rows, p_count, p_scores,
    num_items, dim: tl.constexpr, columns, blocks, group_size, softcap,
    HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, REMOVE_HITS: tl.constexpr, HAS_HISTORY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The largest score of each pool item over the rows of its group,
    but for those that cannot have it as a negative; minus infinity without any. A NaN is the largest."""
    group = tl.program_id(0) // blocks
    column = tl.program_id(0) % blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    m_column = column < columns
    at = group.to(tl.int64) * columns + column
    ids = tl.load(p_ids + at, mask=m_column, other=0)
    count = tl.load(p_count)
    scale = tl.load(p_scale)
    bias = tl.zeros((BLOCK_B,), tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + ids, mask=m_column, other=0.0).to(tl.float32)
    best = tl.full((BLOCK_B,), float("-inf"), tl.float32)
    for tile in range(group_size // BLOCK_M):
        slot = group * group_size + tile * BLOCK_M + tl.arange(0, BLOCK_M)
        m_counted = slot < count
        rows = tl.load(p_rows + slot, mask=m_counted, other=0)
        target, _m_target = load_targets(p_target, rows, m_counted, num_items)
        dot = tl.zeros((BLOCK_M, BLOCK_B), tl.float32)
        for first_d in range(0, dim, BLOCK_D):
            hidden = load_rows(p_hidden, rows, m_counted, first_d, dim, BLOCK_D)
            item = load_rows(p_item, ids, m_column, first_d, dim, BLOCK_D).to(hidden.dtype)
            dot = tl.dot(hidden, tl.trans(item), dot, input_precision=PRECISION)
        s, _slope = cap(dot * scale + bias[None, :], softcap, HAS_SOFTCAP)
        s = tl.where(s != s, float("inf"), s)
        counts = m_counted[:, None]
        if REMOVE_HITS:
            counts = counts & (ids[None, :] != target[:, None])
        if HAS_HISTORY:
            history_first, history_end = load_histories(p_history_first, p_history_end, rows, HAS_HISTORY)
            known_by = catalog_ids(p_row_ids, ids, m_column)
            counts = counts & (
                in_history(p_history_items, history_first[:, None], history_end[:, None], known_by[None, :]) == 0
            )
        best = tl.maximum(best, tl.max(tl.where(counts, s, float("-inf")), 0))
    tl.store(p_scores + at, best, mask=m_column)
