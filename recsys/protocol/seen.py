"""The items of each history of a batch, which a ranking leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, take_ranges
from .list_metrics import NO_ITEM


class Room(NamedTuple):
    """For how many pairs of a batch, and of a row, there is room on a device: powers of two, or 0, so that few of them
    are compiled."""

    pairs: int
    of_row: int

    @classmethod
    def of(cls, lengths: npt.NDArray[np.integer], batch_size: int) -> Room:
        """For rows with so many items, in batches of ``batch_size``."""
        of_batches = np.add.reduceat(lengths, np.arange(0, len(lengths), batch_size)) if len(lengths) else lengths
        return cls(*(_power_of_2(int(most.max(initial=0))) for most in (of_batches, lengths)))


def _power_of_2(number: int) -> int:
    """The least of at least ``number``; 0 for none."""
    return 1 << (number - 1).bit_length() if number else 0


@dataclass(frozen=True, eq=False)
class SeenItems:
    """Pairs of a batch's row and an item that is left out of its ranking, sorted by row and then by item.

    ``row`` and ``item`` are (P,) int32: no (rows, V) mask exists. An item that occurs twice in a history is two pairs.
    ``room`` is that of all batches of an evaluation; None for one that stands alone.
    """

    row: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    room: Room | None = None

    def offsets(self, num_rows: int) -> npt.NDArray[np.int32]:
        """(num_rows + 1,) int32: row r has the pairs ``offsets[r]:offsets[r + 1]``."""
        return np.searchsorted(self.row, np.arange(num_rows + 1)).astype(np.int32)

    def of_shard(self, index: int, number: int) -> SeenItems:
        """Those among the items index, index + number, .., by their places there."""
        is_own = self.item % number == index
        return SeenItems(self.row[is_own], self.item[is_own] // number, self.room)

    def padded(self, num_rows: int) -> tuple[dict[str, npt.NDArray[np.int32]], int]:
        """``row`` and ``item`` filled up to the room with row ``num_rows`` and `NO_ITEM`, and ``first``, the offsets,
        by name; and how many pairs a row has room for."""
        first = self.offsets(num_rows)
        room = self.room or Room.of(np.diff(first), num_rows)
        fill = (0, room.pairs - len(self.row))
        arrays = {"row": np.pad(self.row, fill, constant_values=num_rows), "first": first}
        return arrays | {"item": np.pad(self.item, fill, constant_values=NO_ITEM)}, room.of_row


def seen_items(
    histories: Ragged,
    rows: npt.NDArray[np.integer],
    targets: npt.NDArray[np.integer] | None = None,
    room: Room | None = None,
) -> SeenItems:
    """The items of the whole histories ``rows``, each without its row's target ``targets[i]``, which competes."""
    chosen = take_ranges(histories.values, histories.offsets[rows], histories.offsets[np.asarray(rows) + 1])
    row = np.repeat(np.arange(len(rows), dtype=np.int64), chosen.lengths)
    item = chosen.values
    if targets is not None:
        others = item != targets[row]
        row, item = row[others], item[others]
    pairs = np.sort(row << 32 | item)
    return SeenItems((pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32), room)


def fewest_unseen(histories: Ragged, num_items: int, candidates: npt.NDArray[np.bool_] | None = None) -> int:
    """How many items of the catalog, or of its ``candidates`` (V,), are missing from the history with the most
    different ones; all of them without a history."""
    row = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
    pairs = np.unique(row * num_items + histories.values)
    if candidates is not None:
        pairs = pairs[candidates[pairs % num_items]]
    left = num_items if candidates is None else int(candidates.sum())
    return left - int(np.bincount(pairs // num_items).max(initial=0))
