"""The baseline every model must beat: rank items by how often they were interacted with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .metrics import ranking_metrics
from .ragged import Ragged


class PopularityBaseline:
    """Scores every item by its count in the training rows, the same for every user.

    Ties go to the lower item id, as in `target_ranks`. ``counts`` is (V,) int64.
    """

    def __init__(self, train: Ragged, num_items: int) -> None:
        self.counts = np.bincount(train.values, minlength=num_items)

    def ranks(self, targets: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """(B,) rank of each target, 1 for the most popular item."""
        rank_of_item = np.empty(len(self.counts), dtype=np.int64)
        rank_of_item[self.top(len(self.counts))] = np.arange(1, len(self.counts) + 1)
        return rank_of_item[targets]

    def top(self, k: int) -> npt.NDArray[np.intp]:
        """The k most popular items, best first."""
        return np.argsort(-self.counts, kind="stable")[:k]

    def metrics(self, targets: npt.NDArray[np.integer], ks: Sequence[int] = (10,)) -> dict[str, float]:
        """`ranking_metrics` of the targets' ranks."""
        return ranking_metrics(self.ranks(targets), ks)
