"""Ranks of targets among a whole catalog, and the best items; see ``plan/ranking.py``.

A score is the fp32 product of a user's vector and an item's, from tensor cores: chunks of BLOCK_D columns in order, as
three tf32 products. Every kernel multiplies tiles of the same shape, so that a pair has the same score in each,
wherever it stands, and equal vectors tie exactly.
"""

import triton
import triton.language as tl

from .history import in_history
from .row_results import load_rows
from .select import ordered_keys

ROWS = ("num_users",)  # of other numbers of users no kernel is compiled anew
LOWEST = tl.constexpr(-3.4028234663852886e38)  # what NaN and minus infinity count as: below all other items' scores
NO_ITEM = tl.constexpr(-1)
ID_BITS = tl.constexpr(0x7FFFFFFF)


@triton.jit
def scores(
    p_hidden, p_table, user, m_user, item, m_item, items, dim: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(users, items) fp32; ``items`` are the first BLOCK_D columns of ``item``'s rows. 0 has one sign: it ties."""
    dot = tl.dot(load_rows(p_hidden, user, m_user, 0, dim, BLOCK_D), tl.trans(items), input_precision=PRECISION)
    for first_d in range(BLOCK_D, dim, BLOCK_D):
        h = load_rows(p_hidden, user, m_user, first_d, dim, BLOCK_D)
        more = load_rows(p_table, item, m_item, first_d, dim, BLOCK_D).to(tl.float32)
        dot = tl.dot(h, tl.trans(more), dot, input_precision=PRECISION)
    return tl.where(dot == 0, 0.0, dot)


@triton.jit
def scores_of_one(
    p_hidden, p_table, user, item, m_item, dim: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(items,): the first row of a product with the same user in every row."""
    row = tl.arange(0, TILE)
    items = load_rows(p_table, item, m_item, 0, dim, BLOCK_D).to(tl.float32)
    dot = scores(p_hidden, p_table, user + row * 0, row >= 0, item, m_item, items, dim, BLOCK_D, PRECISION)
    return tl.sum(tl.where((row == 0)[:, None], dot, 0.0), 0)


@triton.jit
def are_candidates(p_candidates, item, m_item, HAS_CANDIDATES: tl.constexpr):
    """``m_item`` without the items that nobody may be given; ``p_candidates`` (V,) is 0 for these."""
    if HAS_CANDIDATES:
        return m_item & (tl.load(p_candidates + item, mask=m_item, other=0) != 0)
    return m_item


@triton.jit
def is_ahead(score, item, target_score, target):
    """Whether items rank before the target: larger scores, NaN among them, and equal ones of lower ids."""
    return (score > target_score) | (score != score) | ((score == target_score) & (item < target))


@triton.jit
def competing(score, is_left):
    """The scores to select the best from; minus infinity is no item."""
    return tl.where(is_left, tl.where(score >= LOWEST, score, LOWEST), float("-inf"))


@triton.jit(do_not_specialize=ROWS)
def target_scores_kernel(
    p_hidden, p_table, p_target, p_score, p_ahead, num_users, num_items, dim: tl.constexpr,
    TILE: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The score of each user's target, and 0 items ahead of it."""
    place = tl.arange(0, TILE)
    user = tl.program_id(0) * TILE + place
    m_user = user < num_users
    target = tl.load(p_target + user, mask=m_user, other=0).to(tl.int32)
    m_target = m_user & (target >= 0) & (target < num_items)
    items = load_rows(p_table, target, m_target, 0, dim, BLOCK_D).to(tl.float32)
    dot = scores(p_hidden, p_table, user, m_user, target, m_target, items, dim, BLOCK_D, PRECISION)
    score = tl.sum(tl.where(place[:, None] == place[None, :], dot, 0.0), 1)
    tl.store(p_score + user, score, mask=m_user)
    tl.store(p_ahead + user, tl.zeros_like(user), mask=m_user)


@triton.jit(do_not_specialize=ROWS)
def sweep_kernel(
    p_hidden, p_table, p_candidates, p_target, p_score, p_ahead, p_maxima, num_users, num_items, num_blocks,
    dim: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_TARGETS: tl.constexpr, HAS_TOP: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """How many of a tile's items are ahead of each user's target, added up; and the largest score of each block
    (users, blocks)."""
    item = tl.program_id(0) * TILE + tl.arange(0, TILE)
    m_item = are_candidates(p_candidates, item, item < num_items, HAS_CANDIDATES)
    block = tl.program_id(0) * (TILE // BLOCK) + tl.arange(0, TILE // BLOCK)
    items = load_rows(p_table, item, m_item, 0, dim, BLOCK_D).to(tl.float32)
    for first in range(0, num_users, TILE):
        user = first + tl.arange(0, TILE)
        m_user = user < num_users
        score = scores(p_hidden, p_table, user, m_user, item, m_item, items, dim, BLOCK_D, PRECISION)
        if HAS_TARGETS:
            target_score = tl.load(p_score + user, mask=m_user, other=0.0)
            target = tl.load(p_target + user, mask=m_user, other=0).to(tl.int32)
            ahead = is_ahead(score, item[None, :], target_score[:, None], target[:, None]) & m_item[None, :]
            tl.atomic_add(p_ahead + user, tl.sum(ahead.to(tl.int32), 1), mask=m_user, sem="relaxed")
        if HAS_TOP:
            value = competing(score, m_item[None, :])
            largest = tl.max(tl.reshape(value, (TILE, TILE // BLOCK, BLOCK)), 2)
            p_block = p_maxima + user.to(tl.int64)[:, None] * num_blocks + block[None, :]
            tl.store(p_block, largest, mask=m_user[:, None] & (block < num_blocks)[None, :])


@triton.jit
def seen_kernel(
    p_hidden, p_table, p_candidates, p_target, p_seen_first, p_seen_items, p_score, p_ahead, p_maxima, num_items,
    num_blocks, parts,
    dim: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_TARGETS: tl.constexpr, HAS_TOP: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Leave out what each user has seen, TILE ids a program, in ascending order: of those ahead of the target, and of
    the maxima of blocks that they are."""
    user, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    first, end = tl.load(p_seen_first + user), tl.load(p_seen_first + user + 1)
    begin = first + part * TILE
    if begin < end:
        i = tl.arange(0, TILE)
        place = begin + i
        there = place < end
        seen = tl.load(p_seen_items + place, mask=there, other=0).to(tl.int32)
        there = are_candidates(p_candidates, seen, there & (seen >= 0) & (seen < num_items), HAS_CANDIDATES)
        score = scores_of_one(p_hidden, p_table, user, seen, there, dim, BLOCK_D, TILE, PRECISION)
        if HAS_TARGETS:
            before = tl.load(p_seen_items + place - 1, mask=place > first, other=-1)  # seen twice, counts once
            ahead = is_ahead(score, seen, tl.load(p_score + user), tl.load(p_target + user).to(tl.int32))
            ahead = ahead & there & (before != seen)
            tl.atomic_add(p_ahead + user, -tl.sum(ahead.to(tl.int32), 0), sem="relaxed")
        if HAS_TOP:
            p_block = p_maxima + user * num_blocks + seen // BLOCK
            # another program may have lowered a maximum that has more than one such item, to what is right
            is_largest = there & (competing(score, there) >= tl.load(p_block, mask=there, other=0.0))
            if BLOCK == 1:
                tl.store(p_block, tl.full((TILE,), float("-inf"), tl.float32), mask=there)
            else:
                left = tl.sum(is_largest.to(tl.int32), 0)
                while left > 0:
                    block = tl.max(tl.where(is_largest, seen // BLOCK, -1), 0)
                    item = block * BLOCK + i
                    m_item = are_candidates(p_candidates, item, (i < BLOCK) & (item < num_items), HAS_CANDIDATES)
                    others = scores_of_one(p_hidden, p_table, user, item, m_item, dim, BLOCK_D, TILE, PRECISION)
                    is_left = m_item & ~in_history(p_seen_items, first + i * 0, end, item)
                    tl.store(p_maxima + user * num_blocks + block, tl.max(competing(others, is_left), 0))
                    is_largest = is_largest & (seen // BLOCK != block)
                    left = tl.sum(is_largest.to(tl.int32), 0)


@triton.jit
def products_kernel(
    p_hidden, p_table, p_candidates, p_seen_first, p_seen_items, p_blocks, p_products, num_items, k, parts,
    dim: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_SEEN: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The scores (users, k * BLOCK) of the items of each user's chosen blocks."""
    user, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    i = part * TILE + tl.arange(0, TILE)
    inside = i < k * BLOCK
    item = tl.load(p_blocks + user * k + i // BLOCK, mask=inside, other=0) * BLOCK + i % BLOCK
    is_left = are_candidates(p_candidates, item, inside & (item < num_items), HAS_CANDIDATES)
    score = scores_of_one(p_hidden, p_table, user, item, is_left, dim, BLOCK_D, TILE, PRECISION)
    if HAS_SEEN:
        first, end = tl.load(p_seen_first + user), tl.load(p_seen_first + user + 1)
        is_left = is_left & ~in_history(p_seen_items, first + i * 0, end, item)
    tl.store(p_products + user * (k * BLOCK) + i, competing(score, is_left), mask=inside)


@triton.jit
def finish_kernel(
    p_score, p_ahead, p_rank, p_values, p_places, p_blocks, p_top, num_items, num_values, k,
    HAS_TARGETS: tl.constexpr, HAS_TOP: tl.constexpr, HAS_BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Each user's rank, from 1, and V + 1 of a target whose score is NaN; and the selected items in order."""
    user = tl.program_id(0).to(tl.int64)
    if HAS_TARGETS:
        score = tl.load(p_score + user)
        tl.store(p_rank + user, tl.where(score == score, tl.load(p_ahead + user), num_items) + 1)
    if HAS_TOP:
        i = tl.arange(0, WIDTH)
        m_i = i < k
        place = tl.load(p_places + user * k + i, mask=m_i, other=0)
        value = tl.load(p_values + user * num_values + place, mask=m_i, other=float("-inf"))
        item = place
        if HAS_BLOCKS:
            item = tl.load(p_blocks + user * k + place // BLOCK, mask=m_i, other=0) * BLOCK + place % BLOCK
        key = (ordered_keys(value).to(tl.int64) << 31) | (item ^ ID_BITS).to(tl.int64)
        key = tl.sort(tl.where(m_i, key, -(2**63)), descending=True)
        is_item = (key >> 31).to(tl.int32) > ordered_keys(tl.full((WIDTH,), float("-inf"), tl.float32))
        found = tl.where(is_item, (key & ID_BITS).to(tl.int32) ^ ID_BITS, NO_ITEM)
        tl.store(p_top + user * k + i, found, mask=m_i)
