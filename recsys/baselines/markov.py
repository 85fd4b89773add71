"""What most often came right after the last item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from .baseline import ScoredBaseline
from .links import Links


class Markov(ScoredBaseline):
    """A Markov chain of first order without smoothing, as in Rendle et al., 2010 (FPMC): items by ``count(a -> b)``.

    ``count(a -> b)`` is how often b comes right after a in the training rows, a the last item of the history. Items of
    one count are in order of their popularity there, then of their ids; those that never came after a, and all after an
    empty history or an item without training events, follow by popularity alone.
    """

    def __init__(self, train: Ragged, num_items: int) -> None:
        super().__init__(train, num_items)
        before = np.ones(len(train.values), dtype=bool)
        before[train.offsets[1:][train.lengths > 0] - 1] = False  # a row's last item
        place = np.flatnonzero(before)
        pairs = train.values[place].astype(np.int64) * num_items + train.values[place + 1]
        pairs, counts = np.unique(pairs, return_counts=True)
        # the float32 score is the place of (count, popularity) among all pairs', exact where a sum of both is not
        level = self.popularity_levels[pairs % num_items].astype(np.int64)
        _, order = np.unique(counts * (num_items + 1) + level, return_inverse=True)
        self._links = Links.of(
            pairs // num_items, pairs % num_items, order + self.popularity_levels.max() + 1, num_items
        )

    def scores(self, histories: Ragged) -> npt.NDArray[np.float32]:
        """As `ScoredBaseline.scores`: numbers that order items, no counts."""
        scores = np.repeat(self.popularity_levels[None], len(histories), axis=0)
        rows = np.flatnonzero(histories.lengths)
        place, item, value = self._links.after(histories.values[histories.offsets[rows + 1] - 1])
        scores[rows[place], item] = value
        return scores
