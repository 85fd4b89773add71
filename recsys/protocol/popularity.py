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
        self._known = np.flatnonzero(self.counts)  # the items of a log are few of a large catalog's
        best_first = np.argsort(-self.counts[self._known], kind="stable")
        self._order = self._known[best_first]
        self._rank_of_known = np.empty(len(self._known), dtype=np.int64)
        self._rank_of_known[best_first] = np.arange(1, len(self._known) + 1)

    def ranks(self, targets: npt.NDArray[np.integer], seen: Ragged | None = None) -> npt.NDArray[np.int64]:
        """(B,) rank of each target, 1 for the most popular item; with ``seen``, B rows of items, among the others than
        those of the row. Raises ``ConfigError`` for ids that are no items."""
        require_items("targets", targets, len(self.counts))
        ranks = self._ranks(targets)
        if seen is None:
            return ranks
        row = np.repeat(np.arange(len(targets)), seen.lengths)
        better = self._ranks(seen.values) < ranks[row]
        pairs = np.unique(row[better] * len(self.counts) + seen.values[better])  # each item of a row once
        return ranks - np.bincount(pairs // len(self.counts), minlength=len(targets))

    def _ranks(self, items: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        place = np.searchsorted(self._known, items)
        if not len(self._known):
            return items.astype(np.int64) + 1
        near = place.clip(max=len(self._known) - 1)
        # behind all that occur come the others by their ids
        return np.where(
            self._known[near] == items, self._rank_of_known[near], len(self._known) + items.astype(np.int64) - place + 1
        )

    def top(self, k: int, candidates: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.intp]:
        """The k most popular items, best first, or as many as there are; of ``candidates`` (V,) alone, if given."""
        order = self._order if candidates is None else self._order[candidates[self._order]]
        missing = k - len(order)
        if missing <= 0:
            return order[:k]
        rest = self.counts == 0 if candidates is None else (self.counts == 0) & candidates
        return np.concatenate([order, np.flatnonzero(rest)[:missing]])

    def metrics(
        self, targets: npt.NDArray[np.integer], ks: Sequence[int] = (10,), seen: Ragged | None = None
    ) -> dict[str, float]:
        """`ranking_metrics` of the targets' ranks."""
        return ranking_metrics(self.ranks(targets, seen), ks)
