"""Uniform negatives, and every item."""

from __future__ import annotations

from dataclasses import dataclass

from ..draws.draw import Draw, all_items
from ..draws.lists import ITEMS, Part
from ..draws.shard import Shard
from ..draws.uniform import GroupedDraws, IndependentDraws
from .base import Negatives, check_count, check_groups, check_share, tell


@dataclass(frozen=True)
class UniformNegatives(Negatives):
    """``num_negatives`` items for every row, uniform over the catalog and without replacement within a row.

    ``group_size`` rows share one draw, so that their scores are a matrix product; 1 draws for every row independently
    (the paper's sampling), otherwise a power of two from 16 to 256. ``shuffle_rows`` assigns rows to groups by a random
    permutation, so that neighbours in one user's sequence do not share their negatives.
    With ``num_negatives`` >= the number of items, every item is a candidate and the loss is full softmax cross-entropy.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        check_count(self, "num_negatives")
        check_groups(self, smallest_group=1)
        tell(self, f"{self.num_negatives}, {self.group_size}, {self.shuffle_rows}")

    def draw(self, num_items: int) -> Draw:
        if self.num_negatives >= num_items:
            return all_items(num_items)
        if self.group_size > 1:
            grouped = GroupedDraws(num_items, self.num_negatives, self.group_size, self.shuffle_rows)
            return Draw("grouped", self.num_negatives, self.group_size, self.shuffle_rows, grouped)
        independent = IndependentDraws(num_items, self.num_negatives)
        mode = "member" if independent.rows_per_round == 1 else "independent"
        return Draw(mode, self.num_negatives, uniform=independent)

    def part(self, num_items: int) -> Part:
        return Part(ITEMS, min(self.num_negatives, num_items))

    def of_shard(self, shard: Shard) -> UniformNegatives:
        return UniformNegatives(check_share(self.num_negatives, shard), self.group_size, self.shuffle_rows)

    def sampling_rate(self, num_items: int) -> float:
        return min(self.num_negatives / max(num_items - 1, 1), 1.0)


@dataclass(frozen=True)
class AllItems(Negatives):
    """Every item is a candidate for every row: full softmax cross-entropy, with nothing drawn and no seed needed."""

    not_binary = "binary cross-entropy is over sampled items"

    def __post_init__(self) -> None:
        tell(self, "")

    def draw(self, num_items: int) -> Draw:
        return all_items(num_items)

    def of_shard(self, shard: Shard) -> AllItems:
        return AllItems()
