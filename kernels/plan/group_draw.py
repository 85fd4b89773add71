"""A draw of groups of rows by itself: which items they draw, before anything is scored; the static numbers, shared by
torch and JAX."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..draws.permutation import half_rounds
from ..draws.uniform import GroupedDraws
from ..errors import ArgumentTypeError, ArgumentValueError
from ..negatives.base import Negatives
from ..negatives.uniform import UniformNegatives
from ..numbers import ceil_div
from .buffers import TABLE_BLOCK, Buffer, place


@dataclass(frozen=True)
class GroupDraw:
    """``draws`` for groups of ``num_rows`` rows, in a single round: no item is drawn twice."""

    num_rows: int
    ignore_index: int
    draws: GroupedDraws

    @property
    def num_groups(self) -> int:
        return ceil_div(self.num_rows, self.draws.group_size)

    @property
    def num_drawn(self) -> int:
        """D, the places of drawn items: those of every slot of every group, each as many as a block's."""
        return self.num_groups * self.draws.slots * self.draws.block

    @property
    def last_block(self) -> int:
        """The places of a group's last slot that hold items."""
        return self.draws.negatives - (self.draws.slots - 1) * self.draws.block

    @property
    def table_sizes(self) -> dict[str, int]:
        """The parts of the int32 scratch: see ``buffers.table_sizes``."""
        return {
            "row_counts": ceil_div(self.num_rows, TABLE_BLOCK),
            "item_keys": half_rounds(self.draws.num_items),
            "round_keys": half_rounds(self.draws.num_blocks),
            "row_keys": 0,
            "group_blocks": self.num_groups * self.draws.slots,
        }

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """drawn (D,), the items in the order of groups, slots and places, -1 where there is none; and scratch."""
        return Buffer("drawn", (self.num_drawn,), "int32"), Buffer("tables", (place(self.table_sizes)[1],), "int32")


@lru_cache(maxsize=256)
def plan_group_draw(negatives: object, num_rows: int, num_items: int, ignore_index: int) -> GroupDraw:
    """The draw of a working set; raises where it has none, or one of more than half the catalog."""
    if not isinstance(negatives, Negatives):
        raise ArgumentTypeError("negatives", "a sampler", type(negatives).__name__)
    if not isinstance(negatives, UniformNegatives):
        raise ArgumentTypeError("negatives", "UniformNegatives", negatives.text)
    draws = negatives.draw(num_items).uniform
    num_groups = ceil_div(num_rows, negatives.group_size)
    if num_groups * negatives.num_negatives > num_items // 2:
        expected = f"at most {num_items // 2} draws, half of num_items, of which a step touches few rows"
        raise ArgumentValueError("negatives", expected, f"{num_groups} groups of {negatives.num_negatives}")
    if not isinstance(draws, GroupedDraws):
        raise ArgumentValueError("negatives", "rows that share draws (group_size of 16 or more)", negatives.text)
    assert num_groups <= draws.groups_per_round  # a round holds more than half the catalog
    return GroupDraw(num_rows, ignore_index, draws)
