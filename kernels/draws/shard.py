"""A catalog in shards, one a rank: which items are where, and how many of a group's draws are each shard's.

Contract: item i is at place i // P of shard i mod P. Items often come in the order of their popularity; cut into
ranges, the first shard would have most targets. Of K draws of a group shard r makes len(range(r, K, P)), from its own
items, with ``fold_seed(seed, r)``; one shard draws what a catalog that is not cut does, with the seed itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shard:
    """Shard ``index`` of ``num_shards`` of a catalog of ``num_items``."""

    num_items: int
    num_shards: int
    index: int

    @property
    def size(self) -> int:
        """How many items it has."""
        return len(range(self.index, self.num_items, self.num_shards))

    def share(self, draws: int) -> int:
        """How many of so many draws are its own; those of two shards differ by one at most."""
        return len(range(self.index, draws, self.num_shards))

    def items(self, places: Any) -> Any:
        """The items at its places, an array of integers."""
        return places * self.num_shards + self.index
