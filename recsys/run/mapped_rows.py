"""Rows of a stored tensor that take other places, piece by piece: no more of a table is in the host's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .neighbours import NeighbourRows, Neighbours
from .tensor_file import Stored, as_numbers, row_ranges

Pieces = Iterator[tuple[npt.NDArray[np.int32], np.ndarray]]


@dataclass(frozen=True)
class MappedRows:
    """Rows for some places of a tensor: ``pieces()`` are places (n,) int32, -1 for a row that has none, and the rows
    (n, ..) as those of a `Stored` of this ``dtype``. A place comes at most once."""

    dtype: str
    pieces: Callable[[], Pieces]


def mapped_rows(
    source: Stored,
    places: npt.NDArray[np.int32],
    start_at_mean: npt.NDArray[np.int32],
    neighbours: Neighbours | None = None,
) -> MappedRows:
    """Row i of ``source`` (V, ..) at ``places[i]``, what `NeighbourRows` makes of them at the items of ``neighbours``,
    and the mean of all its rows at the other places ``start_at_mean`` (n,).

    The mean is summed in float64; new rows are rounded to ``source``'s dtype, float32 or bfloat16. Those of
    ``neighbours``, for whom ``source`` is (V, D), are in memory at once, in float32.
    """
    if neighbours is not None:
        start_at_mean = np.setdiff1d(start_at_mean, neighbours.items, assume_unique=True)

    def pieces() -> Pieces:
        total, first = np.zeros(source.shape[1:], np.float64), 0
        made = None if neighbours is None else NeighbourRows(neighbours, *source.shape[1:])
        for piece in source.pieces():
            end = first + len(piece)
            yield places[first:end], piece
            if len(start_at_mean) or made is not None:
                total += as_numbers(piece, source.dtype).sum(axis=0, dtype=np.float64)
            if made is not None:
                made.add(first, piece, source.dtype)
            first = end
        centre = (total / max(first, 1)).astype(np.float32)
        mean = _words(centre, source.dtype)
        for first, end in row_ranges((len(start_at_mean), *source.shape[1:]), mean.itemsize):
            if end > first:
                yield start_at_mean[first:end], np.repeat(mean[None], end - first, axis=0)
        if neighbours is not None and made is not None:
            for first, end in row_ranges((len(neighbours.items), *source.shape[1:]), 4):
                if end > first:
                    yield neighbours.items[first:end], _words(made.rows(first, end, centre), source.dtype)

    return MappedRows(source.dtype, pieces)


def last_rows(source: Stored, length: int, *, repeat: bool) -> Stored:
    """The last ``length`` rows of ``source``, of which the whole is read; where it has fewer, its first one again in
    front of them, or zeros without ``repeat``."""
    rows = source.array()
    missing = length - len(rows)
    if missing > 0:
        front = rows[:1] if repeat else np.zeros_like(rows[:1])
        rows = np.concatenate([np.repeat(front, missing, axis=0), rows])
    rows = rows[len(rows) - length :]
    return Stored(source.dtype, rows.shape, lambda: [rows])


def _words(numbers: npt.NDArray[np.float32], dtype: str) -> np.ndarray:
    """``numbers`` in ``dtype``; bfloat16 rounded to the nearest, ties to even."""
    if dtype != "bfloat16":
        return numbers.astype(dtype)
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
