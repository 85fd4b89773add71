"""What a baseline is, and how one that scores items ranks targets: as models are ranked, in chunks of users."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, take_ranges
from ..protocol.metrics import require_items, score_ranks
from ..protocol.popularity import item_counts
from ..protocol.seen import seen_items

_SCORES_AT_ONCE = 2**23
"""Scores of a chunk of users, 32 MiB."""


class Baseline(Protocol):
    """Ranks held-out targets among all items of the catalog."""

    def ranks(
        self, histories: Ragged, targets: npt.NDArray[np.integer], *, filter_seen: bool = False
    ) -> npt.NDArray[np.int64]:
        """(B,) rank of each target (B,) after its row of ``histories``, 1 is best; ties go to the lower item id.

        With ``filter_seen`` the items of a history are left out of its ranking, except for the target. Raises
        ``ConfigError`` for targets that are no items.
        """
        ...


class ScoredBaseline(ABC):
    """A baseline that gives each item a score after a history.

    ``popularity_levels`` is (V,) float32: 0 for the items that occur least often in the training rows, 1 for those that
    occur next more often, and so on, so that they order items as counts do and stay exact in float32.
    """

    def __init__(self, train: Ragged, num_items: int) -> None:
        _, levels = np.unique(item_counts(train, num_items), return_inverse=True)
        self.num_items = num_items
        self.popularity_levels = levels.astype(np.float32)

    @abstractmethod
    def scores(self, histories: Ragged) -> npt.NDArray[np.float32]:
        """(B, V) float32 of all items after each of B histories; no score depends on the other rows."""

    def ranks(
        self,
        histories: Ragged,
        targets: npt.NDArray[np.integer],
        *,
        filter_seen: bool = False,
        users_at_once: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """As `Baseline.ranks`; scores exist for ``users_at_once`` histories at a time, by default for as many as make
        2**23 scores."""
        require_items("targets", targets, self.num_items)
        size = users_at_once or max(1, _SCORES_AT_ONCE // self.num_items)
        ranks = np.empty(len(targets), dtype=np.int64)
        for begin in range(0, len(targets), size):
            rows = np.arange(begin, min(begin + size, len(targets)))
            scores = self.scores(take_ranges(histories.values, histories.offsets[rows], histories.offsets[rows + 1]))
            if filter_seen:
                seen = seen_items(histories, rows, targets[rows])
                scores[seen.row, seen.item] = -np.inf
            ranks[rows] = score_ranks(scores, targets[rows])
        return ranks
