"""Other rows' targets as negatives."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..draws.draw import Draw, listed
from ..draws.lists import ROWS, ListDraws, Part
from ..draws.shard import Shard
from ..errors import ArgumentValueError
from .base import Negatives, check_groups, check_shuffle, tell


@dataclass(frozen=True)
class InBatchNegatives(Negatives):
    """The other rows' targets: of the ``group_size`` rows of a group, or with None of the whole call.

    An item comes as often as it is a target, so that the correction needs how often that is: ``log_q`` of the loss, of
    a running estimate (``update_frequencies``), as of Yi et al., RecSys 2019. Rows with the row's own target are no
    negatives, so that ``remove_accidental_hits=False`` raises. Groups as in ``UniformNegatives``, of at least 16 rows.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    not_binary = "without a correction, in-batch negatives teach how rare items are"
    in_batch = True

    group_size: int | None = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        tell(self, f"{self.group_size}, {self.shuffle_rows}")
        if self.group_size is not None:
            check_groups(self)
            return
        check_shuffle(self)
        if not self.shuffle_rows:
            raise ArgumentValueError("shuffle_rows", "True where group_size is None: there are no groups", False)

    def draw(self, num_items: int) -> Draw:
        if self.group_size is None:
            return Draw("shared_ids", random=False, targets=True)
        lists = ListDraws(num_items, (self.part(num_items),), self.group_size)
        return replace(listed(lists, self.group_size, self.shuffle_rows), random=self.shuffle_rows)

    def part(self, num_items: int) -> Part:
        assert self.group_size is not None
        return Part(ROWS, self.group_size)

    def of_shard(self, shard: Shard) -> InBatchNegatives:
        return InBatchNegatives(self.group_size, self.shuffle_rows)  # the targets that are its items
