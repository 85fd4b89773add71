"""The ids that samplers draw, as NumPy arrays: the contract of ``draws.py`` and ``slots.py`` for users and tests."""

from __future__ import annotations

import numpy as np

from . import permutation as pm
from .draws import IndependentDraws, plan_draws, row_places
from .errors import ArgumentValueError
from .permutation import Arithmetic, Seed
from .samplers import Sampler, WeightedNegatives, as_index
from .slots import SlotDraws, items_of_slots, slot_table


def negative_ids(sampler: Sampler, *, num_rows: int, num_items: int, seed: int) -> np.ndarray:
    """The ids that a sampler draws: (num_rows, min(K, V)) int64, in drawing order, accidental hits included.

    Row i is the i-th non-ignored row in flattened order, ``num_rows`` the number of such rows and ``seed`` an int taken modulo 2^64.
    The loss draws exactly these ids on every device. With K >= V uniform negatives are arange(V) in every row; weighted ones are always K,
    and may hold an item several times. Raises ArgumentTypeError or ArgumentValueError for a negative num_rows or num_items < 1.
    """
    num_rows, num_items = as_index("num_rows", num_rows), as_index("num_items", num_items)
    if not 0 <= num_rows < 2**31:
        raise ArgumentValueError("num_rows", "an int in [0, 2^31)", num_rows)
    if not 1 <= num_items < 2**31:
        raise ArgumentValueError("num_items", "an int in [1, 2^31)", num_items)
    xp, words = pm.NUMPY, pm.seed_words(as_index("seed", seed))
    seed_pair = xp.u32(words[0]), xp.u32(words[1])
    if isinstance(sampler, WeightedNegatives):
        return _weighted_ids(sampler, xp, seed_pair, num_rows, num_items)
    draws = plan_draws(sampler, num_items)
    if draws is None:
        return np.tile(np.arange(num_items, dtype=np.int64), (num_rows, 1))
    if num_rows == 0:
        return np.empty((0, draws.negatives), np.int64)
    rows = np.arange(num_rows)
    if isinstance(draws, IndependentDraws):
        return draws.items(xp, seed_pair, rows).astype(np.int64)
    groups = row_places(xp, seed_pair, rows, num_rows, draws.shuffle_rows) // draws.group_size
    drawn = draws.items(xp, seed_pair, np.arange(-(-num_rows // draws.group_size)))
    return drawn[groups.astype(np.int64)].astype(np.int64)


def _weighted_ids(sampler: WeightedNegatives, xp: Arithmetic, seed: Seed, num_rows: int, num_items: int) -> np.ndarray:
    ends = slot_table(sampler, num_items).ends
    groups = np.arange(-(-num_rows // sampler.group_size))
    if num_rows == 0:
        return np.empty((0, sampler.num_negatives), np.int64)
    drawn = items_of_slots(ends, SlotDraws(sampler.num_negatives).draw(xp, seed, groups))
    places = row_places(xp, seed, np.arange(num_rows), num_rows, sampler.shuffle_rows)
    return drawn[(places // sampler.group_size).astype(np.int64)]
