"""The items of each history of a batch, arranged for ranking that leaves them out chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, take_ranges


@dataclass(frozen=True, eq=False)
class SeenItems:
    """Pairs of a batch's row and an item that is left out of its ranking, sorted by item.

    ``row`` and ``item`` are (P,) int32. The pairs of a range of items are neighbours: leaving them out chunk by chunk
    of the catalog takes each pair once, and no (rows, V) mask exists.
    """

    row: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]

    def starts(self, num_items: int, chunk: int) -> npt.NDArray[np.int64]:
        """(chunks + 1,) int64: chunk c of the catalog has the pairs ``starts[c]:starts[c + 1]``."""
        bounds = np.arange(0, num_items + chunk, chunk)
        return np.searchsorted(self.item, bounds).astype(np.int64)


def seen_items(
    histories: Ragged, rows: npt.NDArray[np.integer], targets: npt.NDArray[np.integer] | None = None
) -> SeenItems:
    """The items of the whole histories ``rows``, each without its row's target ``targets[i]``, which competes."""
    chosen = take_ranges(histories.values, histories.offsets[rows], histories.offsets[np.asarray(rows) + 1])
    row = np.repeat(np.arange(len(rows), dtype=np.int32), chosen.lengths)
    item = chosen.values
    if targets is not None:
        others = item != targets[row]
        row, item = row[others], item[others]
    order = np.argsort(item, kind="stable")
    return SeenItems(row[order], item[order])


def fewest_unseen(histories: Ragged, num_items: int) -> int:
    """How many items of the catalog are missing from the history with the most different ones; V without a history."""
    row = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
    pairs = np.unique(row * num_items + histories.values)
    return num_items - int(np.bincount(pairs // num_items).max(initial=0))
