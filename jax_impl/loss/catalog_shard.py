"""A catalog whose rows are sharded over an axis of a mesh: what a shard says of its part."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from ...kernels.draws.shard import Shard
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index, ceil_div


@jax.tree_util.register_static
@dataclass(frozen=True)
class CatalogShard:
    """This shard's part of a catalog of ``num_items`` that the P devices of the mesh's axis ``axis_name`` share, inside
    ``jax.shard_map``: item i is row i // P of shard i mod P.

    The losses' ``catalog``. All shards have ceil(V / P) rows, of which the last of some holds no item and is never
    read: ``jnp.pad(table, ((0, -V % P), (0, 0))).reshape(-1, P, D).swapaxes(0, 1).reshape(-1, D)`` is the table that
    ``PartitionSpec(axis_name)`` cuts so. A call gives rows of each shard's own, and gets their losses.

    Raises ArgumentTypeError or ArgumentValueError for a number or a name that is none.
    """

    num_items: int
    axis_name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_items", as_index("num_items", self.num_items))
        if self.num_items < 1:
            raise ArgumentValueError("num_items", "an int, at least 1", self.num_items)
        if not isinstance(self.axis_name, str):
            raise ArgumentTypeError("axis_name", "the name of a mesh's axis", type(self.axis_name).__name__)

    def shards(self) -> tuple[Shard, ...]:
        """All shards, inside ``jax.shard_map``; raises ArgumentValueError where the mesh has no such axis, or more
        devices than there are items."""
        try:
            number = jax.lax.axis_size(self.axis_name)
        except NameError:
            raise ArgumentValueError(
                "catalog", "a call inside jax.shard_map, whose mesh has the axis_name", repr(self.axis_name)
            ) from None
        if number > self.num_items:
            raise ArgumentValueError("catalog", f"an item or more for each of {number} shards", self.num_items)
        return tuple(Shard(self.num_items, number, index) for index in range(number))

    def rows(self, num_shards: int) -> int:
        """Of every shard's table."""
        return ceil_div(self.num_items, num_shards)
