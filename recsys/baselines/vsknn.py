"""Items of the training rows that are most like the end of the history."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, offsets_of, take_ranges
from .baseline import ScoredBaseline

_PAIRS_AT_ONCE = 2**22
RECENT_ROWS, NEIGHBOURS = 1000, 100


class Vsknn(ScoredBaseline):
    """V-SKNN, vector-multiplied nearest neighbours of sessions (Ludewig and Jannach, 2018, arXiv 1803.09587).

    The score of item j is the sum of ``sim(n)`` over those of the ``NEIGHBOURS`` nearest training rows n that have j.
    ``sim(n)`` is the sum of weights of the different items that the history and n share. A weight falls linearly from
    the history's end: place p of length L weighs p / L, at its item's last occurrence. Neighbours are sought among the
    ``RECENT_ROWS`` rows that share an item and whose last events, at ``last`` (rows,), are the latest. Of equally near
    rows the latest count, of equally late ones those of higher numbers. Items of score 0, after an empty history all,
    follow by popularity. Weights are summed as whole numbers, without the L, which orders nothing.
    """

    def __init__(self, train: Ragged, last: npt.NDArray[np.integer], num_items: int) -> None:
        super().__init__(train, num_items)
        self._fallback = self.popularity_levels - self.popularity_levels.max() - 1
        order = np.lexsort((np.arange(len(train)), last))[::-1]  # of the latest row first: a row's number from here on
        rows = take_ranges(train.values, train.offsets[order], train.offsets[order + 1])
        row = np.repeat(np.arange(len(rows), dtype=np.int64), rows.lengths)
        pairs = np.unique(row * num_items + rows.values)
        row, item = pairs // num_items, pairs % num_items
        self._items = Ragged(item.astype(np.int32), offsets_of(np.bincount(row, minlength=len(rows)).astype(np.int64)))
        # the latest rows of a history are among the latest of each item that they share with it
        by_item = np.argsort(item, kind="stable")
        item, row = item[by_item], row[by_item]
        kept = np.arange(len(item)) - np.searchsorted(item, item) < RECENT_ROWS
        lengths = np.bincount(item[kept], minlength=num_items).astype(np.int64)
        self._rows = Ragged(row[kept].astype(np.int32), offsets_of(lengths))

    def scores(self, histories: Ragged) -> npt.NDArray[np.float32]:
        """As `ScoredBaseline.scores`: times L, and negative where no neighbour has the item."""
        sums = np.zeros((len(histories), self.num_items))
        found = np.cumsum(np.concatenate([[0], self._rows.lengths[histories.values]]))[histories.offsets]
        begin = 0
        while begin < len(histories):
            end = max(begin + 1, int(np.searchsorted(found, found[begin] + _PAIRS_AT_ONCE, side="right")) - 1)
            rows = np.arange(begin, end)
            part = take_ranges(histories.values, histories.offsets[rows], histories.offsets[rows + 1])
            asked, neighbour, near = self._neighbours(part)
            starts, stops = self._items.offsets[neighbour], self._items.offsets[neighbour + 1]
            items = take_ranges(self._items.values, starts, stops)
            np.add.at(sums, (begin + np.repeat(asked, items.lengths), items.values), np.repeat(near, items.lengths))
            begin = end
        return np.where(sums > 0, sums.astype(np.float32), self._fallback)

    def _neighbours(
        self, histories: Ragged
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Pairs (P,) of a history and a neighbour of it, and how near it is."""
        asked = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
        weight = np.arange(1, len(asked) + 1) - histories.offsets[asked]
        # the last occurrence of an item is the first from behind
        pairs, place = np.unique((asked * self.num_items + histories.values)[::-1], return_index=True)
        weight = weight[::-1][place]
        item = pairs % self.num_items
        rows = take_ranges(self._rows.values, self._rows.offsets[item], self._rows.offsets[item + 1])
        which = np.repeat(np.arange(len(item)), rows.lengths)
        num_rows = max(1, len(self._items))
        key, inverse = np.unique(pairs[which] // self.num_items * num_rows + rows.values, return_inverse=True)
        near = np.bincount(inverse, weights=weight[which], minlength=len(key)).astype(np.float64)
        asked, row = key // num_rows, key % num_rows
        kept = np.arange(len(key)) - np.searchsorted(asked, asked) < RECENT_ROWS  # a lower number is later
        asked, row, near = asked[kept], row[kept], near[kept]
        nearest = np.lexsort((row, -near, asked))
        nearest = nearest[np.arange(len(nearest)) - np.searchsorted(asked, asked[nearest]) < NEIGHBOURS]
        return asked[nearest], row[nearest], near[nearest]


def last_times(train: Ragged, time: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(rows,) the time of each row's last event, of the ``time`` of ``train.values``; of an empty row the least."""
    last = np.full(len(train), np.iinfo(np.int64).min)
    there = train.lengths > 0
    last[there] = time[train.offsets[1:][there] - 1]
    return last
