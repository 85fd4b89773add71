"""Draws of groups' lists: items own slots of a virtual range in proportion to their weights, and slots are drawn
uniformly.

Nothing of the range is in memory but where each item's slots end. A draw is uniform over slots without replacement, so
that item j comes with probability q_j = slots of j / slots at every place, which the loss's correction knows exactly.

Contract, for K negatives of a group: the range has T = S W slots, S the largest divisor of K up to ceil(K / 64) and W =
floor(2^28 / S). It is cut into S strata of W slots; a group takes L = K / S slots of each. F = floor(W / L) groups a
round; group g takes in stratum s places (g mod F) L .. + L of the permutation of [0, W) number floor(g / F) S + s. Row
i is in group floor(p / G), as for uniform draws. Items keep their order in the range: a stratum is a range of items,
which bounds what the item gradient holds at a time.

Uniform draws beside others are the same with T = V slots, one of each item, and S = 1. Parts of a list behind the first
draw by keys of domains of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentValueError
from ..negatives.samplers import WeightedNegatives
from . import permutation as pm
from .permutation import Arithmetic, Array, Seed
from .uniform import SLOT_POSITIONS

MOST_SLOTS = 1 << 28
MAX_WEIGHTED_ITEMS = 1 << 26  # so that an item's share is known to a quarter of the average one


@dataclass(frozen=True)
class SlotDraws:
    """The static numbers of a draw of ``negatives`` slots a group, by part number ``part`` of its list; of as many
    slots as there are items where ``num_items`` is given."""

    negatives: int
    num_items: int | None = None
    part: int = 0

    @property
    def domain(self) -> int:
        return pm.DOMAIN_BLOCKS if self.part == 0 else pm.DOMAIN_PARTS + self.part

    @cached_property
    def strata(self) -> int:
        if self.num_items is not None:
            return 1
        most = -(-self.negatives // SLOT_POSITIONS)
        return next(number for number in range(most, 0, -1) if self.negatives % number == 0)

    @property
    def block(self) -> int:
        """L, the slots a group takes of a stratum."""
        return self.negatives // self.strata

    @property
    def width(self) -> int:
        """W, the slots of a stratum."""
        return self.num_items or MOST_SLOTS // self.strata

    @property
    def slots(self) -> int:
        return self.strata * self.width

    @property
    def groups_per_round(self) -> int:
        return self.width // self.block

    def rounds(self, num_groups: int) -> int:
        return -(-num_groups // self.groups_per_round)

    def draw(self, xp: Arithmetic, seed: Seed, groups: Array) -> Array:
        """The (len(groups), K) slots of each group."""
        columns = np.arange(self.negatives)
        strata, places = xp.u32(columns // self.block)[None, :], xp.u32(columns % self.block)[None, :]
        groups = xp.u32(groups)[:, None]
        keys = pm.round_keys(xp, seed, self.domain, groups // self.groups_per_round * self.strata + strata)
        places = (groups % self.groups_per_round) * self.block + places
        return pm.permute(xp, places, self.width, keys) + strata * self.width


class SlotTable(NamedTuple):
    """Of each item (V,): where its slots end, and -log(V q) with its draw probability q; infinite where it is never
    drawn."""

    ends: NDArray[np.int32]
    log_weight: NDArray[np.float32]


def slot_table(sampler: WeightedNegatives, num_items: int) -> SlotTable:
    """The slots of every item; raises ArgumentValueError where the sampler is of another number of items."""
    if num_items > MAX_WEIGHTED_ITEMS:
        raise ArgumentValueError("linear_weight", f"at most {MAX_WEIGHTED_ITEMS} items for weighted draws", num_items)
    slots = share_slots(sampler.weights(num_items), SlotDraws(sampler.num_negatives).slots)
    with np.errstate(divide="ignore"):
        log_weight = -np.log(slots / (slots.sum() / num_items))
    return SlotTable(np.cumsum(slots).astype(np.int32), log_weight.astype(np.float32))


def share_slots(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """``total`` slots in proportion to weights: rounded down, at least one for a positive weight, the rest to the
    largest remainders."""
    exact = weights / weights.sum() * total
    slots = np.floor(exact).astype(np.int64)
    slots[(weights > 0) & (slots == 0)] = 1
    missing = total - int(slots.sum())
    if missing > 0:
        order = np.argsort(np.where(weights > 0, slots - exact, np.inf), kind="stable")
        slots[order[:missing]] += 1
    elif missing < 0:  # what the least weights got is taken from those with many
        spare = slots - 1
        spare[slots == 0] = 0
        taken = np.floor(spare * (-missing / spare.sum())).astype(np.int64)
        slots -= taken
        order = np.argsort(-slots, kind="stable")
        slots[order[: -missing - int(taken.sum())]] -= 1
    return slots


def items_of_slots(ends: NDArray[np.int32], slots: Array) -> NDArray[np.int64]:
    return np.searchsorted(ends, slots, side="right")
