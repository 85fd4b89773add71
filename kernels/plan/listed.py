"""The plan of groups' lists: ids that may come several times in a list and in many lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..draws.permutation import half_rounds
from ..numbers import ceil_div

if TYPE_CHECKING:
    from .problem import Problem

LIST_BLOCK = 64  # ids of a group's list that are scored together
LIST_PART = 64  # sorted draws whose partial gradients a program adds up
# of the partial gradients of lists that are in memory at a time, where a block of each group needs no more
LIST_BYTES = 128 << 20


@dataclass(frozen=True, eq=False)
class Listed:
    """Lists are drawn into the tables, described, and their item gradients summed by item, some columns at a time."""

    p: Problem

    @property
    def draws(self) -> int:
        """Places of all groups' lists together."""
        return self.p.num_groups * self.p.negatives

    @cached_property
    def columns(self) -> int:
        """Columns whose partial gradients are in memory at a time; sort keys of all columns fit 32 bits."""
        per_block = self.p.num_groups * LIST_BLOCK * self.p.dim * 4
        blocks = ceil_div(self.p.negatives, LIST_BLOCK)
        most = (2**31 - 1) // (self.p.num_items + 1) - 1
        passes = min(ceil_div(blocks, max(LIST_BYTES // per_block, 1)), most)
        return ceil_div(blocks, passes) * LIST_BLOCK

    @property
    def passes(self) -> int:
        return ceil_div(self.p.negatives, self.columns)

    @property
    def part_rows(self) -> int:
        return self.p.num_groups * self.columns

    @property
    def keys(self) -> tuple[int, ...]:
        """The number of permutation keys of each part of the lists."""
        draws = self.p.lists.draws if self.p.lists and self.p.draw.draws_lists else ()
        groups = self.p.num_groups
        return tuple(each.rounds(groups) * each.strata * half_rounds(each.width) if each else 0 for each in draws)

    @property
    def tables(self) -> dict[str, int]:
        """list_keys: of the permutations' rounds; lists: (group, column) -> item; list_weights: -> its log weight,
        fp32."""
        return {
            "list_keys": sum(self.keys),
            "lists": self.draws if self.p.lists else 0,
            "list_weights": self.draws if self.p.correction == "weighted" else 0,
        }

    @property
    def scratch(self) -> dict[str, int]:
        """part_of_draw, is_summed: see ``find_parts_kernel``; list_sums: see ``add_list_grad_kernel``."""
        return {
            "part_of_draw": self.draws,
            "is_summed": self.draws,
            "list_sums": 2 * ceil_div(self.part_rows, LIST_PART) * (self.p.dim + 1),
        }
