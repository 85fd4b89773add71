"""The highest-scoring items of a pool as negatives."""

from __future__ import annotations

from dataclasses import dataclass

from ..draws.draw import Draw, listed
from ..draws.lists import ITEMS, ListDraws, Part
from ..errors import ArgumentValueError
from .base import MOST_LISTED, Negatives, check_count, check_groups, tell


@dataclass(frozen=True)
class HardNegatives(Negatives):
    """For every group the ``num_negatives`` highest-scoring items of ``pool`` items drawn uniformly and without
    replacement.

    An item's score in a group is its largest over the group's rows, the rows whose target it is left out; equal ones by
    the order of the draw. The choice is not differentiated. Each kept item stands for V / pool items: ``s_j + log(V /
    P)``, which makes the sum of the whole pool an unbiased estimate of that over the catalog, of which the chosen items
    are the larger part. With a pool of every item the loss is softmax cross-entropy over each group's hardest items.
    Scoring and choosing take about 20 bytes for each group and item of its pool. Groups as in ``UniformNegatives``, of
    at least 16 rows.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains, and for more negatives than the
    pool has.
    """

    not_binary = "the hardest items of a pool stand for others, which binary cross-entropy has no place for"

    pool: int
    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        check_count(self, "pool", MOST_LISTED + 1)
        check_count(self, "num_negatives", MOST_LISTED + 1)
        check_groups(self)
        if self.num_negatives > self.pool:
            raise ArgumentValueError("num_negatives", f"at most the {self.pool} items of the pool", self.num_negatives)
        tell(self, f"{self.pool}, {self.num_negatives}, {self.group_size}, {self.shuffle_rows}")

    def draw(self, num_items: int) -> Draw:
        pool = min(self.pool, num_items)
        lists = ListDraws(num_items, (Part(ITEMS, pool),), min(self.num_negatives, pool))
        return listed(lists, self.group_size, self.shuffle_rows, "pool")
