"""Items that a row must not count as negatives, such as its user's own: a sorted range of a flat array for each row."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .scores import exp
from .search import lower_bound


@triton.jit(do_not_specialize=ROW_NUMBERS)
def history_ranges_kernel(p_users, p_offsets, p_first, p_end, num_rows, num_users, num_known, BLOCK: tl.constexpr):
    """The range of each row's items; of a user that there is not it ends before it begins, which makes the row's loss
    NaN."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m_n = n < num_rows
    user = tl.load(p_users + n, mask=m_n, other=0).to(tl.int64)
    exists = m_n & (user >= 0) & (user < num_users)
    first = tl.load(p_offsets + user, mask=exists, other=0).to(tl.int64)
    end = tl.load(p_offsets + user + 1, mask=exists, other=0).to(tl.int64)
    exists = exists & (first >= 0) & (first <= end) & (end <= num_known)
    tl.store(p_first + n, tl.where(exists, first, 0).to(tl.int32), mask=m_n)
    tl.store(p_end + n, tl.where(exists, end, -1).to(tl.int32), mask=m_n)


@triton.jit
def catalog_ids(p_row_ids, ids, mask):
    """What places among the rows of a working set are in the catalog, which histories are told in; -1 outside the mask.
    Where the table is the catalog, without ``p_row_ids``, they are what they are."""
    if p_row_ids is not None:
        ids = tl.load(p_row_ids + ids, mask=mask, other=-1)
    return ids


@triton.jit
def in_history(p_items, first, end, ids):
    """Whether each id is in its row's range, by bisection; shapes (M, 1) and (1, B) or the like, or both of one
    shape."""
    place = lower_bound(p_items, first + ids * 0, end, ids)
    return tl.load(p_items + place, mask=place < end, other=-1).to(tl.int32) == ids


@triton.jit
def history_mass(p_items, p_log_weight, first, end, target, num_items, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr):
    """What a row's items (M,) but its target weigh: 1 each, or V q; all of them, and log weights, as in the catalog."""
    mass = tl.zeros((first.shape[0],), tl.float32)
    for start in range(0, tl.max(end - first, 0), BLOCK):
        i = first[:, None] + start + tl.arange(0, BLOCK)[None, :]
        inside = i < end[:, None]
        item = tl.load(p_items + i, mask=inside, other=-1).to(tl.int32)
        inside = inside & (item >= 0) & (item < num_items) & (item != target[:, None])
        weight = tl.where(inside, 1.0, 0.0)
        if WEIGHTED:
            weight = tl.where(inside, exp(-tl.load(p_log_weight + item, mask=inside, other=0.0)), 0.0)
        mass += tl.sum(weight, 1)
    return mass
