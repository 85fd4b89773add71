"""Which items each row draws: the contract that every implementation follows bit for bit.

Row i is the i-th non-ignored row in flattened order; R is their number, which only the device knows; K < V from here
on.

Independent rows (group_size 1): the catalog is cut into S strata of W = floor(V / S) positions of the step's one item
permutation, which is left out if S is 1; S is the largest divisor of K up to min(ceil(K / 64), floor(V / 4K)), at least
1. A row takes L = K / S positions of each stratum; F = floor(W / L) = floor(V / K) rows a round; row i takes in stratum
    s places (i mod F) L .. + L of the permutation of [0, W)
number floor(i / F) S + s. The item permutation makes the strata random, so that a row's items are uniform and without
replacement; rows that walk the strata side by side meet in the cache.

Grouped rows: S = ceil(K / 64) slots of L = ceil(K / S) positions, the last one cut so that a group has exactly K items;
NB = floor(V / L) blocks; block j is positions [j L, (j + 1) L) of the step's one item permutation. F = floor(NB / S)
groups a round; group g takes in slot s the block that stands at (g mod F) S + s in the block permutation of round
floor(g / F). If NB < S, every group takes the first K positions. Row i is in group floor(p / G) with p its image under
the row permutation of [0, R), or i itself without ``shuffle_rows``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import permutation as pm
from .permutation import Arithmetic, Array, Seed

SLOT_POSITIONS = 64


def row_places(xp: Arithmetic, seed: Seed, rows: Array, num_rows: Array | int, shuffle_rows: bool) -> Array:
    """The place of each row index below ``num_rows``; its group is place // group_size."""
    if not shuffle_rows:
        return xp.u32(rows)
    return pm.permute(xp, rows, num_rows, pm.round_keys(xp, seed, pm.DOMAIN_ROWS, 0))


@dataclass(frozen=True)
class GroupedDraws:
    """The static numbers of a grouped draw of ``negatives`` < ``num_items`` items."""

    num_items: int
    negatives: int
    group_size: int
    shuffle_rows: bool

    @property
    def slots(self) -> int:
        return -(-self.negatives // SLOT_POSITIONS)

    @property
    def block(self) -> int:
        """L, the positions of a block."""
        return -(-self.negatives // self.slots)

    @property
    def num_blocks(self) -> int:
        return self.num_items // self.block

    @property
    def groups_per_round(self) -> int:
        """F; 0 when every group takes the first K positions."""
        return self.num_blocks // self.slots

    def items(self, xp: Arithmetic, seed: Seed, groups: Array) -> Array:
        """The (len(groups), K) items of each group."""
        positions = xp.u32(np.arange(self.negatives))[None, :]
        groups = xp.u32(groups)[:, None]
        if self.groups_per_round:
            per_round = self.groups_per_round
            keys = pm.round_keys(xp, seed, pm.DOMAIN_BLOCKS, groups // per_round)
            places = (groups % per_round) * self.slots + positions // self.block
            blocks = pm.permute(xp, places, self.num_blocks, keys)
            positions = blocks * self.block + positions % self.block
        else:
            positions = positions + groups * 0
        return pm.permute(xp, positions, self.num_items, pm.round_keys(xp, seed, pm.DOMAIN_ITEMS, groups * 0))


@dataclass(frozen=True)
class IndependentDraws:
    """The static numbers of an independent draw of ``negatives`` < ``num_items`` items a row."""

    num_items: int
    negatives: int

    @cached_property
    def strata(self) -> int:
        """S; with V < 8 K there is one stratum, so that rows have few round keys."""
        most = min(-(-self.negatives // SLOT_POSITIONS), self.num_items // (4 * self.negatives))
        return next((number for number in range(most, 1, -1) if self.negatives % number == 0), 1)

    @property
    def block(self) -> int:
        """L, the positions a row takes of a stratum."""
        return self.negatives // self.strata

    @property
    def width(self) -> int:
        """W, the positions of a stratum."""
        return self.num_items // self.strata

    @property
    def rows_per_round(self) -> int:
        return self.num_items // self.negatives

    def items(self, xp: Arithmetic, seed: Seed, rows: Array) -> Array:
        """The (len(rows), K) items of each row index."""
        rows = xp.u32(rows)[:, None]
        strata = xp.u32(np.arange(self.strata))[None, :]
        keys = pm.round_keys(xp, seed, pm.DOMAIN_BLOCKS, rows // self.rows_per_round * self.strata + strata)
        places = ((rows % self.rows_per_round) * self.block + strata * 0)[:, :, None] + xp.u32(np.arange(self.block))
        positions = pm.permute(xp, places, self.width, keys[..., None]) + (strata * self.width)[:, :, None]
        positions = positions.reshape(len(rows), -1)
        if self.strata == 1:
            return positions
        return pm.permute(xp, positions, self.num_items, pm.round_keys(xp, seed, pm.DOMAIN_ITEMS, rows * 0))
