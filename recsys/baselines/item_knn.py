"""Items whose users are those of the history's items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, offsets_of, take_ranges
from .baseline import ScoredBaseline
from .links import Links

_PAIRS_AT_ONCE = 2**22
NEIGHBOURS = 1000
"""Of each item, the most similar others that are kept; of equal ones those of lower ids."""


class ItemKnn(ScoredBaseline):
    """Item-based neighbours (Sarwar et al., 2001; Deshpande and Karypis, 2004): the score of item j is the sum of
    ``cos(i, j)`` over the different items i of the history.

    ``cos(i, j) = users(i and j) / sqrt(users(i) * users(j))`` for i != j is the cosine of their columns in the 0/1
    table of training rows and items; ``neighbours`` of each i have one, the others 0. Sums are in float64 of float32
    cosines.
    Items of score 0, after an empty history all, follow by popularity. It keeps 8 bytes for each item and neighbour.
    """

    def __init__(self, train: Ragged, num_items: int, neighbours: int = NEIGHBOURS) -> None:
        super().__init__(train, num_items)
        self._fallback = self.popularity_levels - self.popularity_levels.max() - 1
        row = np.repeat(np.arange(len(train), dtype=np.int64), train.lengths)
        pairs = np.unique(row * num_items + train.values)
        number, items, cosines = np.zeros(num_items, np.int64), [], []
        for source, item, cosine in _similar(
            pairs // num_items, (pairs % num_items).astype(np.int32), num_items, neighbours
        ):
            number += np.bincount(source, minlength=num_items)
            items.append(item)
            cosines.append(cosine)
        self._links = Links(Ragged(_joined(items), offsets_of(number)), _joined(cosines))

    def scores(self, histories: Ragged) -> npt.NDArray[np.float32]:
        """As `ScoredBaseline.scores`; negative without a similar item."""
        row = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
        pairs = np.unique(row * self.num_items + histories.values)  # an item that comes again counts once
        row, source = pairs // self.num_items, pairs % self.num_items
        sums = np.zeros(len(histories) * self.num_items)
        size = max(1, _PAIRS_AT_ONCE // max(1, int(self._links.items.lengths.max(initial=0))))
        for begin in range(0, len(row), size):
            place, item, cosine = self._links.after(source[begin : begin + size])
            np.add.at(sums, row[begin + place] * self.num_items + item, cosine.astype(np.float64))
        scores = sums.reshape(len(histories), self.num_items).astype(np.float32)
        return np.where(scores > 0, scores, self._fallback)


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The ``parts`` one after the other, each freed once it is copied: at a million items they are gigabytes."""
    whole, at = np.empty(sum(map(len, parts)), parts[0].dtype), 0
    for place, part in enumerate(parts):
        whole[at : at + len(part)] = part
        at, parts[place] = at + len(part), part[:0].copy()
    return whole


Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]


def _similar(
    row: npt.NDArray[np.int64], item: npt.NDArray[np.int32], num_items: int, neighbours: int
) -> Iterator[Part]:
    """The items (P,) that have neighbours, in order, those neighbours and their cosines, of the different pairs of a
    ``row`` and an ``item`` in order of rows; block by block of items."""
    rows = Ragged(item, offsets_of(np.bincount(row).astype(np.int64)))
    users = np.bincount(item, minlength=num_items)
    by_item = np.argsort(item, kind="stable")
    item_of, row_of = item[by_item], row[by_item]
    reached = np.cumsum(rows.lengths[row_of])
    begin = 0
    while begin < len(item_of):
        # whole items, whose rows have so many items together; at least one item
        end = int(np.searchsorted(reached, (reached[begin - 1] if begin else 0) + _PAIRS_AT_ONCE, side="right"))
        first_of = np.searchsorted(item_of, item_of[end]) if end < len(item_of) else end
        end = int(first_of) if first_of > begin else int(np.searchsorted(item_of, item_of[begin], side="right"))
        yield _most_similar(item_of[begin:end], row_of[begin:end], rows, users, neighbours)
        begin = end


def _most_similar(
    item: npt.NDArray[np.int32],
    row: npt.NDArray[np.int64],
    rows: Ragged,
    users: npt.NDArray[np.int64],
    neighbours: int,
) -> Part:
    others = take_ranges(rows.values, rows.offsets[row], rows.offsets[row + 1])
    key = np.repeat(item.astype(np.int64) - item[0], others.lengths) * len(users) + others.values
    size = (int(item[-1]) - int(item[0]) + 1) * len(users)
    if size <= 4 * _PAIRS_AT_ONCE:  # counting by place is faster than sorting
        found = np.bincount(key, minlength=size)
        key = np.flatnonzero(found)
        together = found[key]
    else:
        key, together = np.unique(key, return_counts=True)
    source, other = key // len(users) + item[0], key % len(users)
    is_other = source != other
    source, other, together = source[is_other], other[is_other], together[is_other]
    cosine = (together / np.sqrt(users[source].astype(np.float64) * users[other])).astype(np.float32)
    order = np.lexsort((other, -cosine, source))
    first = np.searchsorted(source, source[order])  # source is sorted
    kept = order[np.arange(len(order)) - first < neighbours]
    return source[kept], other[kept].astype(np.int32), cosine[kept]
