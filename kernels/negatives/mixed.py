"""The negatives of two samplers together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..draws.draw import Draw, listed
from ..draws.lists import ROWS, ListDraws
from ..draws.shard import Shard
from ..errors import ArgumentTypeError, ArgumentValueError
from .base import MIN_GROUP, Negatives, Probabilities, keep_by_text, tell
from .in_batch import InBatchNegatives
from .uniform import UniformNegatives
from .weighted import LogUniformNegatives, PopularityNegatives


@dataclass(frozen=True)
class MixedNegatives(Negatives):
    """The negatives of two samplers together, such as uniform and in-batch ones (arXiv 2508.06450, "mixed").

    With K_i draws of probabilities q_i each (of a group's rows one less than ``group_size``, since a row's own target
    is none), the correction takes Q = (K_1 q_1 + K_2 q_2) / (K_1 + K_2). Both are grouped, with one ``group_size`` and
    ``shuffle_rows``: ``UniformNegatives``, ``PopularityNegatives``, ``LogUniformNegatives`` or ``InBatchNegatives``,
    the last one at most once. The two draw independently.

    Raises ArgumentTypeError or ArgumentValueError for others.
    """

    not_binary = "without a correction, a mixture's shares would be weights of its own"

    first: UniformNegatives | PopularityNegatives | LogUniformNegatives | InBatchNegatives
    second: UniformNegatives | PopularityNegatives | LogUniformNegatives | InBatchNegatives

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            sampler = getattr(self, name)
            if not isinstance(sampler, Negatives) or type(sampler).part is Negatives.part:
                expected = "UniformNegatives, PopularityNegatives, LogUniformNegatives or InBatchNegatives"
                raise ArgumentTypeError(name, expected, type(sampler).__name__)
            if sampler.group_size in (1, None):
                raise ArgumentValueError(
                    name, f"a sampler of groups of {MIN_GROUP} rows or more", f"group_size {sampler.group_size}"
                )
        if self.first.in_batch and self.second.in_batch:
            raise ArgumentValueError("second", "another sampler beside InBatchNegatives", "InBatchNegatives")
        for option in ("group_size", "shuffle_rows"):
            first, second = getattr(self.first, option), getattr(self.second, option)
            if first != second:
                raise ArgumentValueError("second", f"the {option} of the first, {first}", second)
        tell(self, f"{self.first.text}, {self.second.text}")
        if not self.whole_in_text:
            keep_by_text(self)

    @property
    def group_size(self) -> int:  # type: ignore[override]
        assert self.first.group_size is not None
        return self.first.group_size

    @property
    def shuffle_rows(self) -> bool:  # type: ignore[override]
        return self.first.shuffle_rows

    @property
    def in_batch(self) -> bool:  # type: ignore[override]
        return self.first.in_batch or self.second.in_batch

    @property
    def whole_in_text(self) -> bool:  # type: ignore[override]
        return self.first.whole_in_text and self.second.whole_in_text

    def draw(self, num_items: int) -> Draw:
        parts = self.first.part(num_items), self.second.part(num_items)
        lists = ListDraws(num_items, parts, sum(part.columns for part in parts))
        return listed(lists, self.group_size, self.shuffle_rows)

    def of_shard(self, shard: Shard) -> MixedNegatives:
        return MixedNegatives(self.first.of_shard(shard), self.second.of_shard(shard))

    def probabilities(self, num_items: int) -> Probabilities:
        """q = the mean of its parts', by their shares of a row's draws."""
        lists = self.draw(num_items).lists
        assert lists is not None
        ends, known = [], np.zeros(1)
        for sampler, part, share in zip((self.first, self.second), lists.parts, lists.shares, strict=True):
            q = sampler.probabilities(num_items)
            if q.slot_ends is not None:
                ends.append(q.slot_ends)
            if part.source != ROWS:
                known = known + share * (1 if q.log_weight is None else np.exp(-q.log_weight.astype(np.float64)))
        with np.errstate(divide="ignore"):
            log_weight = -np.log(known).astype(np.float32) if lists.has_weights else None
        return Probabilities(np.concatenate(ends) if ends else None, log_weight)
