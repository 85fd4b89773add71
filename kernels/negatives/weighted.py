"""Negatives with unequal probabilities: lists that groups draw by slots."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..draws.draw import Draw, listed
from ..draws.lists import SLOTS, ListDraws, Part
from ..draws.shard import Shard
from ..draws.slots import slot_table
from ..errors import ArgumentTypeError, ArgumentValueError
from .base import (
    MOST_LISTED,
    Negatives,
    Probabilities,
    check_count,
    check_groups,
    check_share,
    keep_by_text,
    tell,
)


class WeightedNegatives(Negatives):
    """What samplers with unequal probabilities share; a subclass says what items weigh."""

    num_negatives: int
    group_size: int
    shuffle_rows: bool

    def __post_init__(self) -> None:
        check_count(self, "num_negatives", MOST_LISTED + 1)
        check_groups(self)
        tell(self, f"{self.num_negatives}, {self.group_size}, {self.shuffle_rows}")

    def weights(self, num_items: int) -> NDArray[np.float64]:
        """What each item's draw probability is proportional to; raises for a catalog that the sampler does not fit."""
        raise NotImplementedError

    def draw(self, num_items: int) -> Draw:
        part = self.part(num_items)
        return listed(ListDraws(num_items, (part,), part.columns), self.group_size, self.shuffle_rows)

    def part(self, num_items: int) -> Part:
        return Part(SLOTS, self.num_negatives)

    def of_shard(self, shard: Shard) -> PopularityNegatives:
        weights, step = self.weights(shard.num_items), shard.num_shards
        for index in range(step):  # so that all shards raise, or none
            if not weights[index::step].any():
                expected = f"an item of a positive count in each of {step} shards"
                raise ArgumentValueError("negatives", expected, f"none in shard {index}")
        share = check_share(self.num_negatives, shard)
        return PopularityNegatives(weights[shard.index :: step], share, 1.0, self.group_size, self.shuffle_rows)

    def probabilities(self, num_items: int) -> Probabilities:
        ends, log_weight = slot_table(self.weights(num_items), self.num_negatives)
        return Probabilities(ends, log_weight)


@dataclass(frozen=True, eq=False)
class PopularityNegatives(WeightedNegatives):
    """``num_negatives`` items for every group of rows, drawn in proportion to ``counts ** alpha``.

    ``counts`` (V,) are nonnegative numbers, at least one positive: how often each item occurs in the training data. An
    item without a count is never drawn. ``alpha`` smooths them: 1 is popularity, 0 uniform over the items that occur,
    0.75 the choice of word2vec (arXiv 1310.4546). An item may be drawn more than once for a row; each draw counts.
    Groups and ``shuffle_rows`` as in ``UniformNegatives``; a group has at least 16 rows. Keep one sampler for a
    training: its tables are made once, and two samplers are equal only if they are the same object.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    whole_in_text = False

    counts: ArrayLike
    num_negatives: int
    alpha: float = 0.75
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)):
            raise ArgumentTypeError("alpha", "a number", type(self.alpha).__name__)
        if not 0 <= self.alpha < float("inf"):
            raise ArgumentValueError("alpha", "a finite number, at least 0", self.alpha)
        counts = np.array(self.counts)
        if counts.dtype.kind not in "iuf":
            raise ArgumentTypeError("counts", "an array of numbers", str(counts.dtype))
        if counts.ndim != 1 or not (counts >= 0).all() or not np.isfinite(counts).all() or not (counts > 0).any():
            raise ArgumentValueError(
                "counts", "finite numbers (V,), none negative and not all 0", f"shape {counts.shape}, {counts}"
            )
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)
        digest = hashlib.sha256(f"{counts.dtype}".encode() + counts.tobytes()).hexdigest()
        tell(self, f"counts_{digest}, {self.num_negatives}, {self.alpha}, {self.group_size}, {self.shuffle_rows}")
        keep_by_text(self)

    def weights(self, num_items: int) -> NDArray[np.float64]:
        counts = np.asarray(self.counts, np.float64)
        if len(counts) != num_items:
            raise ArgumentValueError(
                "negatives", f"counts of the {num_items} items of linear_weight", f"{len(counts)} counts"
            )
        return np.where(counts > 0, (counts / counts.max()) ** self.alpha, 0.0)


@dataclass(frozen=True)
class LogUniformNegatives(WeightedNegatives):
    """``num_negatives`` items for every group of rows, item j with probability log((j + 2) / (j + 1)) / log(V + 1).

    Zipf's law for items sorted from the most to the least popular, as TensorFlow's log_uniform_candidate_sampler; an
    item may be drawn more than once. Groups and errors as in ``PopularityNegatives``; its tables, too, are made once
    and live as long as the sampler.
    """

    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def weights(self, num_items: int) -> NDArray[np.float64]:
        return np.log1p(1.0 / np.arange(1.0, num_items + 1.0))
