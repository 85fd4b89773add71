"""Rows for new items to start from, made of the rows of the items beside theirs in users' histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from .tensor_file import as_numbers

DISTANCE = 3
"""Known events that count on either side of a new item's."""

_AT_ONCE = 2**20
"""Bytes of rows that are gathered at once: few enough for a processor's cache, or it takes twice as long."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The known items around new ones: pair p is of the new item ``items[new[p]]`` and row ``known[p]`` of an earlier
    table, with the weight ``weights[p]``.

    ``items`` (n,) int32 have at least one pair each. ``known`` (m,) int64 ascend; ``new`` (m,) int64 ascend where these
    are equal, and no pair comes twice; ``weights`` (m,) float32.
    """

    items: npt.NDArray[np.int32]
    known: npt.NDArray[np.int64]
    new: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, train: Ragged, places: npt.NDArray[np.int32], items: npt.NDArray[np.int32]) -> Neighbours:
        """Those of the new ``items`` (n',), ascending, in the rows of ``train``, among the items at ``places`` (V',),
        -1 for none: row j of the earlier table is that of the item ``places[j]``.

        Events of unknown items are skipped. The d-th known event before and the d-th after an event of a new item, in
        the same row and with d up to `DISTANCE`, each add 1 / d to the weight of their pair. Takes some 100 bytes for
        each of these, and 8 for each event of ``train``.
        """
        num_items = 1 + max(int(each.max(initial=-1)) for each in (train.values, places, items))
        row_of, place_of = np.full(num_items, -1, np.int32), np.full(num_items, -1, np.int32)
        row_of[places[places >= 0]] = np.flatnonzero(places >= 0)
        place_of[items] = np.arange(len(items))
        rows = row_of[train.values]
        unknown = np.flatnonzero(rows < 0)
        known = rows[rows >= 0]
        bounds = train.offsets - np.searchsorted(unknown, train.offsets)  # of histories, in ``known``
        following = unknown - np.arange(len(unknown))  # the first known event behind each, in ``known``
        new = place_of[train.values[unknown]]
        unknown, following, new = (each[new >= 0] for each in (unknown, following, new))
        history = np.searchsorted(train.offsets, unknown, side="right") - 1
        first, end = bounds[history], bounds[history + 1]
        keys, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
        for distance in range(1, DISTANCE + 1):
            for place in (following - distance, following + distance - 1):
                is_there = (place >= first) & (place < end)
                keys.append(known[place[is_there]].astype(np.int64) * len(items) + new[is_there])
                weights.append(np.full(len(keys[-1]), 1 / distance))
        pairs, number = np.unique(np.concatenate(keys), return_inverse=True)
        row, place = np.divmod(pairs, max(len(items), 1))
        found, place = np.unique(place, return_inverse=True)
        total = np.bincount(number, np.concatenate(weights), len(pairs))
        return cls(items[found], row, place, total.astype(np.float32))


class NeighbourRows:
    """Adds up rows of an earlier table, piece by piece, to those that the new items of ``neighbours`` start from.

    With the weights w_p of an item's pairs, the rows e_p of their known items, and the mean c of all rows, which counts
    as one more neighbour, m = (c + sum_p w_p e_p) / (1 + sum_p w_p) and l = (|c| + sum_p w_p |e_p|) / (1 + sum_p w_p),
    it starts from l m / |m|, or from zeros where m is zeros. Without pairs that is c.
    """

    def __init__(self, neighbours: Neighbours, dim: int) -> None:
        self._neighbours = neighbours
        self._sums = np.zeros((len(neighbours.items), dim), np.float32)
        self._lengths = np.zeros(len(neighbours.items))

    def add(self, first: int, piece: np.ndarray, dtype: str) -> None:
        """Adds the rows ``piece`` (n, D) of a `Stored` of ``dtype``, of which the first is row ``first``."""
        neighbours, at_once = self._neighbours, max(_AT_ONCE // (4 * piece.shape[1]), 1)
        begin, end = np.searchsorted(neighbours.known, (first, first + len(piece))).tolist()
        for start in range(begin, end, at_once):
            chosen = slice(start, min(start + at_once, end))
            order = np.argsort(neighbours.new[chosen], kind="stable")
            new, weights = neighbours.new[chosen][order], neighbours.weights[chosen][order]
            rows = as_numbers(piece[neighbours.known[chosen][order] - first], dtype)
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            starts = np.flatnonzero(np.diff(new, prepend=-1))  # np.add.at takes many times as long
            self._sums[new[starts]] += np.add.reduceat(weights[:, None] * rows, starts, axis=0)
            self._lengths[new[starts]] += np.add.reduceat(weights * lengths, starts)

    def rows(self, first: int, end: int, centre: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The rows (end - first, D) float32 of the items from ``first`` to ``end``, once all pieces are added, whose
        mean is ``centre`` (D,)."""
        total = 1 + np.bincount(self._neighbours.new, self._neighbours.weights, len(self._sums))[first:end]
        sums = self._sums[first:end] + centre
        lengths = (self._lengths[first:end] + np.linalg.norm(centre)) / total
        norms = np.linalg.norm(sums, axis=1)
        scale = np.divide(lengths, norms, out=np.zeros_like(lengths), where=norms > 0)
        return (sums * scale[:, None]).astype(np.float32)
