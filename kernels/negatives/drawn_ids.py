"""The ids that samplers draw, as NumPy arrays: the contract of ``draws`` for users and tests."""

from __future__ import annotations

import numpy as np

from ..draws import permutation as pm
from ..draws.lists import SLOTS, ListDraws
from ..draws.permutation import Arithmetic, Seed
from ..draws.shard import Shard
from ..draws.slots import items_of_slots
from ..draws.uniform import IndependentDraws, row_places
from ..errors import ArgumentTypeError, ArgumentValueError
from ..numbers import as_index
from .base import Negatives


def negative_ids(sampler: Negatives, *, num_rows: int, num_items: int, seed: int, num_shards: int = 1) -> np.ndarray:
    """The ids that a sampler draws: (num_rows, K) int64, in drawing order, accidental hits included.

    Row i is the i-th non-ignored row in flattened order, ``num_rows`` the number of such rows and ``seed`` an int taken
    modulo 2^64. The loss draws exactly these ids on every device. With K >= V uniform negatives are arange(V) in every
    row; weighted ones are always K, and may hold an item several times. With ``num_shards`` P they are what the shards
    of a catalog draw (``CatalogShard``), one shard behind the other; rows are those of all ranks in their order, and
    item i is drawn by shard i mod P. Raises ArgumentTypeError or ArgumentValueError
    for a negative num_rows or num_items < 1, and for samplers whose negatives do not follow from the seed alone:
    in-batch ones, and hard ones, which follow from scores.
    """
    num_rows, num_items = as_index("num_rows", num_rows), as_index("num_items", num_items)
    if not 0 <= num_rows < 2**31:
        raise ArgumentValueError("num_rows", "an int in [0, 2^31)", num_rows)
    if not 1 <= num_items < 2**31:
        raise ArgumentValueError("num_items", "an int in [1, 2^31)", num_items)
    if not isinstance(sampler, Negatives):
        raise ArgumentTypeError("sampler", "a sampler", type(sampler).__name__)
    num_shards = as_index("num_shards", num_shards)
    if not 1 <= num_shards <= num_items:
        raise ArgumentValueError("num_shards", f"an int in [1, {num_items}], the number of items", num_shards)
    draw = sampler.draw(num_items)
    if not draw.follows_seed:
        expected = "a sampler that draws by the seed alone, not by targets or scores"
        raise ArgumentTypeError("sampler", expected, type(sampler).__name__)
    if num_shards > 1:
        shards = [Shard(num_items, num_shards, index) for index in range(num_shards)]
        return np.concatenate([_ids_of_shard(sampler, shard, num_rows, as_index("seed", seed)) for shard in shards], 1)
    xp, words = pm.NUMPY, pm.seed_words(as_index("seed", seed))
    seed_pair = xp.u32(words[0]), xp.u32(words[1])
    if isinstance(draw.uniform, IndependentDraws):
        rows = np.arange(num_rows)
        of_rows = draw.uniform.items(xp, seed_pair, rows) if num_rows else np.empty((0, draw.negatives))
        return of_rows.astype(np.int64)
    groups = np.arange(-(-num_rows // draw.group_size))
    if draw.lists is not None:
        ends = sampler.probabilities(num_items).slot_ends
        drawn = drawn_lists(draw.lists, xp, seed_pair, groups, ends)
    elif draw.uniform is not None:
        drawn = draw.uniform.items(xp, seed_pair, groups)
    else:
        return np.tile(np.arange(num_items, dtype=np.int64), (num_rows, 1))
    return _of_rows(drawn, xp, seed_pair, num_rows, draw.group_size, draw.shuffle_rows)


def _ids_of_shard(sampler: Negatives, shard: Shard, num_rows: int, seed: int) -> np.ndarray:
    """The items that a shard draws for each row."""
    own_seed = pm.fold_seed(seed, shard.index)
    own = negative_ids(sampler.of_shard(shard), num_rows=num_rows, num_items=shard.size, seed=own_seed)
    return shard.items(own)


def _of_rows(
    drawn: np.ndarray, xp: Arithmetic, seed: Seed, num_rows: int, group_size: int, shuffle_rows: bool
) -> np.ndarray:
    """What the group of each row drew."""
    if num_rows == 0:
        return np.empty((0, drawn.shape[1]), np.int64)
    places = row_places(xp, seed, np.arange(num_rows), num_rows, shuffle_rows)
    return drawn[(places // group_size).astype(np.int64)].astype(np.int64)


def drawn_lists(
    lists: ListDraws, xp: Arithmetic, seed: Seed, groups: np.ndarray, slot_ends: np.ndarray | None
) -> np.ndarray:
    """The columns (len(groups), ..) of lists without rows' targets; ``slot_ends`` as in ``Probabilities``."""
    remaining = iter(() if slot_ends is None else slot_ends.reshape(-1, lists.num_items))
    return np.concatenate(
        [
            items_of_slots(next(remaining), drawn) if source == SLOTS else np.asarray(drawn)
            for source, drawn in lists.drawn(xp, seed, groups)
        ],
        1,
    )
