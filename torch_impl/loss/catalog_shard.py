"""A catalog whose rows are sharded over the ranks of a process group: what a rank says of its part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch.distributed as dist

from ...kernels.draws.shard import Shard
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import MAX_ROWS
from ...kernels.numbers import as_index

if TYPE_CHECKING:  # which torch may be built without
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class CatalogShard:
    """This rank's part of a catalog of ``num_items`` that the P ranks of ``group`` share: item i is row i // P of rank
    i mod P, whose table is ``table[rank::P]``.

    The losses' ``catalog``. A call is one of all ranks: each gives rows of its own and the part of the table, and gets
    its rows' losses. ``group`` None is the default process group. ``max_rows``: how many rows every rank's call is
    filled up to, by rows that are ignored; None where all ranks' calls have equally many, such as batches of one shape.

    Raises ArgumentTypeError or ArgumentValueError for other numbers, fewer items than ranks, and without a process
    group that this process belongs to.
    """

    num_items: int
    group: ProcessGroup | None = None
    max_rows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_items", as_index("num_items", self.num_items))
        if self.max_rows is not None:
            object.__setattr__(self, "max_rows", as_index("max_rows", self.max_rows))
            if not 0 <= self.max_rows <= MAX_ROWS:
                raise ArgumentValueError("max_rows", f"an int in [0, {MAX_ROWS}], or None", self.max_rows)
        if not (dist.is_available() and dist.is_initialized()):
            raise ArgumentValueError("group", "a process group (torch.distributed.init_process_group)", "none")
        if self.group is not None and not isinstance(self.group, dist.ProcessGroup):
            raise ArgumentTypeError("group", "a torch.distributed process group or None", type(self.group).__name__)
        if dist.get_rank(self.group) < 0:
            raise ArgumentValueError("group", "a process group that this process belongs to", "another")
        if self.num_items < self.shard.num_shards:
            raise ArgumentValueError(
                "num_items", f"an item or more for each of {self.shard.num_shards} ranks", self.num_items
            )

    @cached_property
    def shard(self) -> Shard:
        return Shard(self.num_items, dist.get_world_size(self.group), dist.get_rank(self.group))
