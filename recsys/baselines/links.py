"""Items and the items that they lead to, without a V x V table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, offsets_of, take_ranges


@dataclass(frozen=True, eq=False)
class Links:
    """Item i leads to the items of row i of ``items``, with ``values`` (P,), one a pair, aligned with ``items.values``.

    P is the number of pairs that there are; float32 values are exact for counts below 2**24.
    """

    items: Ragged
    values: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls, source: npt.NDArray[np.integer], item: npt.NDArray[np.integer], values: npt.ArrayLike, num_items: int
    ) -> Links:
        """Of pairs (P,) in order of ``source``."""
        offsets = offsets_of(np.bincount(source, minlength=num_items).astype(np.int64))
        return cls(Ragged(item.astype(np.int32), offsets), np.asarray(values, dtype=np.float32))

    def after(
        self, sources: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """All links of the ``sources`` (n,), one after the other: for each its place among them, its item and its
        value."""
        starts, stops = self.items.offsets[sources], self.items.offsets[np.asarray(sources) + 1]
        found = take_ranges(self.items.values, starts, stops)
        place = np.repeat(np.arange(len(sources)), found.lengths)
        within = np.arange(len(place)) - found.offsets[place]
        return place, found.values, self.values[starts[place] + within]
