"""The items of each history of a batch, which a ranking leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, take_ranges


@dataclass(frozen=True, eq=False)
class SeenItems:
    """Pairs of a batch's row and an item that is left out of its ranking, sorted by row and then by item.

    ``row`` and ``item`` are (P,) int32: no (rows, V) mask exists. An item that occurs twice in a history is two pairs.
    """

    row: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]

    def offsets(self, num_rows: int) -> npt.NDArray[np.int32]:
        """(num_rows + 1,) int32: row r has the pairs ``offsets[r]:offsets[r + 1]``."""
        return np.searchsorted(self.row, np.arange(num_rows + 1)).astype(np.int32)


def seen_items(
    histories: Ragged, rows: npt.NDArray[np.integer], targets: npt.NDArray[np.integer] | None = None
) -> SeenItems:
    """The items of the whole histories ``rows``, each without its row's target ``targets[i]``, which competes."""
    chosen = take_ranges(histories.values, histories.offsets[rows], histories.offsets[np.asarray(rows) + 1])
    row = np.repeat(np.arange(len(rows), dtype=np.int64), chosen.lengths)
    item = chosen.values
    if targets is not None:
        others = item != targets[row]
        row, item = row[others], item[others]
    pairs = np.sort(row << 32 | item)
    return SeenItems((pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32))


def fewest_unseen(histories: Ragged, num_items: int, candidates: npt.NDArray[np.bool_] | None = None) -> int:
    """How many items of the catalog, or of its ``candidates`` (V,), are missing from the history with the most
    different ones; all of them without a history."""
    row = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
    pairs = np.unique(row * num_items + histories.values)
    if candidates is not None:
        pairs = pairs[candidates[pairs % num_items]]
    left = num_items if candidates is None else int(candidates.sum())
    return left - int(np.bincount(pairs // num_items).max(initial=0))
