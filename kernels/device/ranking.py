"""Ranks of targets among a whole catalog, and the best items; see ``plan/ranking.py``.

A score is the product of a user's vector and an item's, good to fp32, from tensor cores: a vector is scaled by a power
of two and split in two halves of fp16, 11 bits each, and of the four products of halves the three that count are added
up in fp32, chunks of BLOCK_D columns in order. Every kernel multiplies the same halves in the same order, so that a
pair has the same score in each, wherever it stands, and equal vectors tie exactly.
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
TOP = tl.constexpr(10)  # a vector's largest number is below 2^(TOP + 1), far from fp16's end and its subnormal numbers


@triton.jit
def scale_of(largest):
    """The power of two that brings numbers of up to ``largest`` to 2^TOP, where both halves have all their bits, and
    its inverse; 1 for infinity and NaN."""
    exponent = largest.to(tl.int32, bitcast=True) >> 23
    scale = tl.where(exponent == 255, 127, tl.minimum((254 - exponent) + TOP, 253))
    return (scale << 23).to(tl.float32, bitcast=True), ((254 - scale) << 23).to(tl.float32, bitcast=True)


@triton.jit
def row_scales(p, rows, mask, first, dim: tl.constexpr, BLOCK_D: tl.constexpr):
    """``scale_of`` the numbers of each row of a matrix, of which ``first`` are the first BLOCK_D columns in fp32."""
    largest = tl.max(tl.abs(first), 1)
    for first_d in range(BLOCK_D, dim, BLOCK_D):
        more = load_rows(p, rows, mask, first_d, dim, BLOCK_D).to(tl.float32)
        largest = tl.maximum(largest, tl.max(tl.abs(more), 1))
    return scale_of(largest)


@triton.jit
def halves(x, scale):
    """(high, low) fp16, which add up to ``x`` (rows, columns) times ``scale`` (rows,); infinity is all in the first."""
    scaled = x * scale[:, None]
    high = scaled.to(tl.float16)
    rest = scaled - high.to(tl.float32)
    return high, tl.where(tl.abs(rest) < float("inf"), rest, 0.0).to(tl.float16)


@triton.jit
def scores(
    p_halves, p_inverse, p_table, user, m_user, item, m_item, high, low, scale, inverse, num_users,
    dim: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(users, items) fp32; ``high`` and ``low`` are the halves of the first BLOCK_D columns of ``item``'s rows, by
    their ``scale`` and its ``inverse``. 0 has one sign: it ties."""
    p_low = p_halves + num_users.to(tl.int64) * dim
    user_high = load_rows(p_halves, user, m_user, 0, dim, BLOCK_D)
    user_low = load_rows(p_low, user, m_user, 0, dim, BLOCK_D)
    large = tl.dot(user_high, tl.trans(high))
    small = tl.dot(user_low, tl.trans(high), tl.dot(user_high, tl.trans(low)))
    for first_d in range(BLOCK_D, dim, BLOCK_D):
        user_high = load_rows(p_halves, user, m_user, first_d, dim, BLOCK_D)
        user_low = load_rows(p_low, user, m_user, first_d, dim, BLOCK_D)
        more = load_rows(p_table, item, m_item, first_d, dim, BLOCK_D).to(tl.float32)
        more_high, more_low = halves(more, scale)
        large = tl.dot(user_high, tl.trans(more_high), large)
        small = tl.dot(user_low, tl.trans(more_high), tl.dot(user_high, tl.trans(more_low), small))
    # where a vector is not finite, its first half says so, and products of the others may be anything
    dot = large + tl.where(tl.abs(small) < float("inf"), small, 0.0)
    of_user = tl.load(p_inverse + user, mask=m_user, other=0.0)
    dot = dot * (of_user[:, None] * inverse[None, :])
    return tl.where(dot == 0, 0.0, dot)


@triton.jit
def item_halves(p_table, item, m_item, dim: tl.constexpr, BLOCK_D: tl.constexpr):
    """The halves of the first BLOCK_D columns of ``item``'s rows, their scale and its inverse."""
    items = load_rows(p_table, item, m_item, 0, dim, BLOCK_D).to(tl.float32)
    scale, inverse = row_scales(p_table, item, m_item, items, dim, BLOCK_D)
    high, low = halves(items, scale)
    return high, low, scale, inverse


@triton.jit
def scores_of_one(
    p_halves, p_inverse, p_table, user, item, m_item, num_users, dim: tl.constexpr, BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """(items,): the first row of a product with the same user in every row."""
    row = tl.arange(0, TILE)
    high, low, scale, inverse = item_halves(p_table, item, m_item, dim, BLOCK_D)
    dot = scores(
        p_halves, p_inverse, p_table, user + row * 0, row >= 0, item, m_item, high, low, scale, inverse, num_users, dim,
        BLOCK_D,
    )  # fmt: skip
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
    ahead = (score > target_score) | (score != score) | ((score == target_score) & (item < target))
    return ahead & (item != target)


@triton.jit
def competing(score, is_left):
    """The scores to select the best from; minus infinity is no item."""
    return tl.where(is_left, tl.where(score >= LOWEST, score, LOWEST), float("-inf"))


@triton.jit(do_not_specialize=ROWS)
def halve_users_kernel(
    p_hidden, p_halves, p_inverse, num_users, dim: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The halves (2, users, dim) of each user's vector, and the inverse (users,) of its scale."""
    user = tl.program_id(0) * TILE + tl.arange(0, TILE)
    m_user = user < num_users
    first = load_rows(p_hidden, user, m_user, 0, dim, BLOCK_D)
    scale, inverse = row_scales(p_hidden, user, m_user, first, dim, BLOCK_D)
    tl.store(p_inverse + user, inverse, mask=m_user)
    for first_d in range(0, dim, BLOCK_D):
        high, low = halves(load_rows(p_hidden, user, m_user, first_d, dim, BLOCK_D), scale)
        d = first_d + tl.arange(0, BLOCK_D)
        p_high = p_halves + user.to(tl.int64)[:, None] * dim + d[None, :]
        inside = m_user[:, None] & (d < dim)[None, :]
        tl.store(p_high, high, mask=inside)
        tl.store(p_high + num_users.to(tl.int64) * dim, low, mask=inside)


@triton.jit(do_not_specialize=ROWS)
def target_scores_kernel(
    p_halves, p_inverse, p_table, p_target, p_score, p_ahead, num_users, num_items, dim: tl.constexpr,
    TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The score of each user's target, and 0 items ahead of it."""
    place = tl.arange(0, TILE)
    user = tl.program_id(0) * TILE + place
    m_user = user < num_users
    target = tl.load(p_target + user, mask=m_user, other=0).to(tl.int32)
    m_target = m_user & (target >= 0) & (target < num_items)
    high, low, scale, inverse = item_halves(p_table, target, m_target, dim, BLOCK_D)
    dot = scores(
        p_halves, p_inverse, p_table, user, m_user, target, m_target, high, low, scale, inverse, num_users, dim, BLOCK_D
    )  # fmt: skip
    score = tl.sum(tl.where(place[:, None] == place[None, :], dot, 0.0), 1)
    tl.store(p_score + user, score, mask=m_user)
    tl.store(p_ahead + user, tl.zeros_like(user), mask=m_user)


@triton.jit(do_not_specialize=ROWS)
def sweep_kernel(
    p_halves, p_inverse, p_table, p_candidates, p_target, p_score, p_ahead, p_maxima, num_users, num_items, num_blocks,
    dim: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_TARGETS: tl.constexpr, HAS_TOP: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """How many of TILE items are ahead of each user's target, added up; and the largest score of each block
    (users, blocks)."""
    item = tl.program_id(0) * TILE + tl.arange(0, TILE)
    m_item = are_candidates(p_candidates, item, item < num_items, HAS_CANDIDATES)
    block = tl.program_id(0) * (TILE // BLOCK) + tl.arange(0, TILE // BLOCK)
    high, low, scale, inverse = item_halves(p_table, item, m_item, dim, BLOCK_D)
    for first in range(0, num_users, TILE):
        user = first + tl.arange(0, TILE)
        m_user = user < num_users
        score = scores(
            p_halves, p_inverse, p_table, user, m_user, item, m_item, high, low, scale, inverse, num_users, dim, BLOCK_D
        )  # fmt: skip
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


@triton.jit(do_not_specialize=ROWS)
def seen_kernel(
    p_halves, p_inverse, p_table, p_candidates, p_target, p_seen_first, p_seen_items, p_score, p_ahead, p_maxima,
    num_users, num_items, num_blocks, parts,
    dim: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_TARGETS: tl.constexpr, HAS_TOP: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
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
        score = scores_of_one(p_halves, p_inverse, p_table, user, seen, there, num_users, dim, BLOCK_D, TILE)
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
                    others = scores_of_one(
                        p_halves, p_inverse, p_table, user, item, m_item, num_users, dim, BLOCK_D, TILE
                    )
                    is_left = m_item & ~in_history(p_seen_items, first + i * 0, end, item)
                    tl.store(p_maxima + user * num_blocks + block, tl.max(competing(others, is_left), 0))
                    is_largest = is_largest & (seen // BLOCK != block)
                    left = tl.sum(is_largest.to(tl.int32), 0)


@triton.jit(do_not_specialize=ROWS)
def products_kernel(
    p_halves, p_inverse, p_table, p_candidates, p_seen_first, p_seen_items, p_blocks, p_products, num_users, num_items,
    k, parts,
    dim: tl.constexpr, HAS_CANDIDATES: tl.constexpr, HAS_SEEN: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The scores (users, k * BLOCK) of the items of each user's chosen blocks."""
    user, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    i = part * TILE + tl.arange(0, TILE)
    inside = i < k * BLOCK
    item = tl.load(p_blocks + user * k + i // BLOCK, mask=inside, other=0) * BLOCK + i % BLOCK
    is_left = are_candidates(p_candidates, item, inside & (item < num_items), HAS_CANDIDATES)
    score = scores_of_one(p_halves, p_inverse, p_table, user, item, is_left, num_users, dim, BLOCK_D, TILE)
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
