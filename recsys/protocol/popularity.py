"""How often items occur, and the baseline every model must beat: rank items by that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from .metrics import ranking_metrics, require_items


def item_counts(train: Ragged, num_items: int) -> npt.NDArray[np.int64]:
    """(V,) int64: how often each item occurs in the training rows."""
    return np.bincount(train.values, minlength=num_items).astype(np.int64)


def smoothed_frequencies(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """(V,) float32 shares of ``counts + 1``: they sum to 1 and none is 0."""
    smoothed = counts + 1.0
    return (smoothed / smoothed.sum()).astype(np.float32)


class PopularityBaseline:
    """Scores every item by its count in the training rows, the same for every user.

    Ties go to the lower item id, as in `target_ranks`. ``counts`` is (V,) int64.
    """

    def __init__(self, train: Ragged, num_items: int) -> None:
        self.counts = item_counts(train, num_items)

    def ranks(self, targets: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """(B,) rank of each target, 1 for the most popular item; raises ``ConfigError`` for ids that are no items."""
        require_items("targets", targets, len(self.counts))
        rank_of_item = np.empty(len(self.counts), dtype=np.int64)
        rank_of_item[self.top(len(self.counts))] = np.arange(1, len(self.counts) + 1)
        return rank_of_item[targets]

    def top(self, k: int) -> npt.NDArray[np.intp]:
        """The k most popular items, best first."""
        return np.argsort(-self.counts, kind="stable")[:k]

    def metrics(self, targets: npt.NDArray[np.integer], ks: Sequence[int] = (10,)) -> dict[str, float]:
        """`ranking_metrics` of the targets' ranks."""
        return ranking_metrics(self.ranks(targets), ks)
