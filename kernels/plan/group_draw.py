"""A draw by itself: which items rows draw before anything is scored; the static numbers, shared by torch and JAX."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..draws.draw import Draw
from ..draws.lists import ROWS
from ..draws.permutation import half_rounds
from ..draws.uniform import GroupedDraws
from ..errors import ArgumentTypeError, ArgumentValueError
from ..negatives.base import Negatives
from ..negatives.uniform import AllItems
from ..numbers import ceil_div
from .buffers import TABLE_BLOCK, Buffer, forward_buffers, place, pool_buffers, table_buffer, table_sizes
from .problem import INTERPRETER_GPU, Choices, Problem, Shapes, Wanted, build_problem


@dataclass(frozen=True)
class GroupDraw:
    """``draws`` for groups of ``num_rows`` rows, in a single round: no item is drawn twice."""

    num_rows: int
    ignore_index: int
    draws: GroupedDraws

    @property
    def num_items(self) -> int:
        return self.draws.num_items

    @property
    def group_size(self) -> int:
        return self.draws.group_size

    @property
    def num_groups(self) -> int:
        return ceil_div(self.num_rows, self.group_size)

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

    @property
    def result(self) -> tuple[str, int]:
        """The buffer that holds the drawn items, and the first element of these."""
        return "drawn", 0


@dataclass(frozen=True)
class ListDraw:
    """The lists that groups of ``num_rows`` rows draw from ``num_items``, or what they choose these from; of a draw of
    all rows' targets nothing."""

    num_rows: int
    ignore_index: int
    num_items: int
    draw: Draw

    @property
    def group_size(self) -> int:
        return self.draw.group_size

    @property
    def num_groups(self) -> int:
        return ceil_div(self.num_rows, self.group_size)

    @property
    def columns(self) -> int:  # compiled code comes here, which cannot read a cached property
        return sum(part.columns for part in self.draw.lists.parts) if self.draw.lists else 0

    @property
    def chooses(self) -> bool:
        """Whether lists are chosen from the columns that are drawn."""
        return self.draw.negatives < self.columns

    @property
    def num_drawn(self) -> int:
        """D, the columns of all groups together."""
        return self.num_groups * self.columns

    @cached_property
    def problem(self) -> Problem:
        """The call on the whole catalog whose tables are drawn; nothing of them follows from dtypes, width or GPU."""
        shapes = Shapes(self.num_rows, 1, self.num_items, "float32", "float32", None, None, INTERPRETER_GPU)
        choices = Choices(None, True, self.ignore_index, False, None, "none", False)
        return build_problem(shapes, choices, self.draw, Wanted(False, False, False, False))

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Those of the call that its tables take, its lists among them or beside them."""
        counted = (buffer for buffer in forward_buffers(self.problem) if buffer.name == "counted")
        pool = (buffer for buffer in pool_buffers(self.problem) if buffer.name == "pool_ids" and buffer.size)
        return *counted, table_buffer(self.problem), *pool

    @property
    def result(self) -> tuple[str, int]:
        """The buffer that holds the drawn items, and the first element of these."""
        return ("pool_ids", 0) if self.chooses else ("tables", place(table_sizes(self.problem))[0]["lists"])


def plan_group_draw(negatives: object, num_rows: int, num_items: int, ignore_index: int) -> GroupDraw | ListDraw:
    """The draw of a working set; raises where it has none, or one of more than half the catalog."""
    if not isinstance(negatives, Negatives):
        raise ArgumentTypeError("negatives", "a sampler", type(negatives).__name__)
    if isinstance(negatives, AllItems):
        raise ArgumentTypeError("negatives", "a sampler of part of the catalog", negatives.text)
    # by its text and draw: what is kept must not keep a sampler's counts
    num_groups = ceil_div(num_rows, negatives.group_size or max(num_rows, 1))
    return _planned(negatives.text, negatives.draw(num_items), num_groups, num_rows, num_items, ignore_index)


@lru_cache(maxsize=256)
def _planned(
    sampler: str, draw: Draw, num_groups: int, num_rows: int, num_items: int, ignore_index: int
) -> GroupDraw | ListDraw:
    drawn = draw.negatives  # by a group, other than rows' targets
    if draw.lists is not None:
        drawn = sum(part.columns for part in draw.lists.parts if part.source != ROWS)
    if num_groups * drawn > num_items // 2:
        expected = f"at most {num_items // 2} draws, half of num_items, of which a step touches few rows"
        raise ArgumentValueError("negatives", expected, f"{num_groups} groups of {drawn}")
    if draw.lists is not None or draw.targets:
        return ListDraw(num_rows, ignore_index, num_items, draw)
    if not isinstance(draw.uniform, GroupedDraws):
        raise ArgumentValueError("negatives", "rows that share draws (group_size of 16 or more)", sampler)
    assert num_groups <= draw.uniform.groups_per_round  # a round holds more than half the catalog
    return GroupDraw(num_rows, ignore_index, draw.uniform)
