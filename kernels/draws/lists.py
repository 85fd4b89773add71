"""Lists of candidates that groups draw, made of parts; which columns come from where.

Contract: a group's list is the columns of its parts, one part after the other. SLOTS and ITEMS draw by ``slots.py``;
ROWS are the targets of the group's rows, in the order of their places, -1 where a place is empty. With fewer
``negatives`` than columns, the list is the columns' highest-scoring ones (``HardNegatives``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .permutation import Arithmetic, Array, Seed
from .slots import SlotDraws

SLOTS, ITEMS, ROWS = 0, 1, 2


class Part(NamedTuple):
    """Some columns of every list: where they come from, and how many there are."""

    source: int
    columns: int


@dataclass(frozen=True)
class ListDraws:
    """The static numbers of the lists that groups draw from ``num_items`` items."""

    num_items: int
    parts: tuple[Part, ...]
    negatives: int

    @cached_property
    def columns(self) -> int:
        return sum(part.columns for part in self.parts)

    @property
    def chooses(self) -> bool:
        """Whether the highest-scoring columns are taken."""
        return self.negatives < self.columns

    @property
    def has_rows(self) -> bool:
        """Whether some columns are rows' targets, which may leave columns empty."""
        return any(part.source == ROWS for part in self.parts)

    @property
    def slot_parts(self) -> int:
        """How many parts are drawn by slots."""
        return sum(part.source == SLOTS for part in self.parts)

    @property
    def has_weights(self) -> bool:
        """Whether probabilities that are known beforehand are other than 1 / V."""
        return self.slot_parts > 0 or (self.has_rows and len(self.parts) > 1)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each part in a row's draws; of a group's rows the row itself is none."""
        numbers = [part.columns - (part.source == ROWS) for part in self.parts]
        return tuple(number / sum(numbers) for number in numbers)

    @property
    def batch_share(self) -> float:
        """The share of rows' targets."""
        return sum(share for part, share in zip(self.parts, self.shares, strict=True) if part.source == ROWS)

    @cached_property
    def draws(self) -> tuple[SlotDraws | None, ...]:
        """How each part is drawn; None of rows."""
        ranges = {SLOTS: None, ITEMS: self.num_items}
        return tuple(
            None if part.source == ROWS else SlotDraws(part.columns, ranges[part.source], number)
            for number, part in enumerate(self.parts)
        )

    def drawn(self, xp: Arithmetic, seed: Seed, groups: Array) -> Iterator[tuple[int, Array | None]]:
        """(source, the (len(groups), columns) slots or items that are drawn, None of rows) of each part."""
        for part, draws in zip(self.parts, self.draws, strict=True):
            yield part.source, None if draws is None else draws.draw(xp, seed, groups)
