"""A table of all items in parts, one a device: of P, part r has the rows of the items r, r + P, r + 2 P, ..

Files hold whole tables: a run goes on with any number of devices, and is served by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .mapped_rows import MappedRows, Pieces
from .tensor_file import Stored, row_ranges


def rows_of_shard(source: Stored, index: int, number: int) -> Stored:
    """Part ``index`` of ``number`` of a whole tensor with a row for each item."""

    def pieces() -> Iterator[np.ndarray]:
        first = index  # the part's next row, counted from the piece's first
        for piece in source.pieces():
            own = np.ascontiguousarray(piece[first::number])
            yield own
            first += len(own) * number - len(piece)

    return Stored(source.dtype, (len(range(index, source.shape[0], number)), *source.shape[1:]), pieces)


def mapped_rows_of_shard(source: MappedRows, index: int, number: int) -> MappedRows:
    """The rows whose places are in part ``index`` of ``number``, with their places there."""

    def pieces() -> Pieces:
        for places, rows in source.pieces():
            is_own = (places >= 0) & (places % number == index)
            yield np.where(is_own, places // number, -1).astype(np.int32), rows

    return MappedRows(source.dtype, pieces)


def whole(
    dtype: str, shape: tuple[int, ...], number: int, rows_of_parts: Callable[[int, int], Sequence[np.ndarray]]
) -> Stored:
    """The tensor of ``shape`` whose ``number`` parts have the rows ``rows_of_parts(first, end)`` each, as many of all:
    where the last row of a part is no item's, it says nothing. A process that has no parts, as another one puts them
    together, has no pieces either."""
    rows, itemsize = -(-shape[0] // number), Stored(dtype, shape, list).numpy_dtype.itemsize

    def pieces() -> Iterator[np.ndarray]:
        for first, end in row_ranges((rows, number, *shape[1:]), itemsize):
            if parts := rows_of_parts(first, end):
                yield np.stack(parts, axis=1).reshape(-1, *shape[1:])[: shape[0] - first * number]

    return Stored(dtype, shape, pieces)
