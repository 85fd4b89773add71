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

from ..negatives.samplers import HardNegatives, InBatchNegatives, MixedNegatives, UniformNegatives, WeightedNegatives
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

    @property
    def numbers(self) -> tuple[int, ...]:
        """The parts as plain numbers, for operators."""
        return tuple(number for part in self.parts for number in part)


def parts_of(numbers: tuple[int, ...]) -> tuple[Part, ...]:
    return tuple(Part(source, columns) for source, columns in zip(numbers[::2], numbers[1::2], strict=True))


def mixed_samplers(sampler: object) -> tuple[object, ...]:
    """The samplers of a list's parts."""
    return (sampler.first, sampler.second) if isinstance(sampler, MixedNegatives) else (sampler,)


def weighted_samplers(sampler: object) -> tuple[WeightedNegatives, ...]:
    """The samplers whose slots a list is drawn from, in the order of its parts."""
    return tuple(part for part in mixed_samplers(sampler) if isinstance(part, WeightedNegatives))


def has_in_batch(sampler: object) -> bool:
    """Whether rows' targets are among the negatives."""
    return any(isinstance(part, InBatchNegatives) for part in mixed_samplers(sampler))


def _part(sampler: object, num_items: int) -> Part:
    if isinstance(sampler, WeightedNegatives):
        return Part(SLOTS, sampler.num_negatives)
    if isinstance(sampler, InBatchNegatives):
        assert sampler.group_size is not None
        return Part(ROWS, sampler.group_size)
    if isinstance(sampler, HardNegatives):
        return Part(ITEMS, min(sampler.pool, num_items))
    assert isinstance(sampler, UniformNegatives)
    return Part(ITEMS, min(sampler.num_negatives, num_items))


def plan_lists(sampler: object, num_items: int) -> ListDraws | None:
    """The lists that a sampler draws for groups of rows; None where it draws no lists."""
    whole_batch = isinstance(sampler, InBatchNegatives) and sampler.group_size is None
    if whole_batch or not isinstance(sampler, (WeightedNegatives, InBatchNegatives, MixedNegatives, HardNegatives)):
        return None
    parts = tuple(_part(part, num_items) for part in mixed_samplers(sampler))
    columns = sum(part.columns for part in parts)
    return ListDraws(
        num_items, parts, min(sampler.num_negatives, columns) if isinstance(sampler, HardNegatives) else columns
    )


def mixture_shares(sampler: MixedNegatives, num_items: int) -> tuple[float, float]:
    """The share of each part in a row's draws; of a group's rows the row itself is none."""
    first, second = (
        part.columns - (part.source == ROWS) for part in (_part(each, num_items) for each in mixed_samplers(sampler))
    )
    return first / (first + second), second / (first + second)
