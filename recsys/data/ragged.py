"""Sequences of different lengths in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    ``values`` is (total,) int32, ``offsets`` is (rows + 1,) int64 with ``offsets[0] == 0``. Values of another type
    become int32, as batches are; raises `DataError` for one that is no integer or does not fit.
    """

    values: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", as_int32(self.values, "values"))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int] | npt.NDArray[np.integer]]) -> Ragged:
        """Pack rows given one by one; raises `DataError` for a value that is no integer or does not fit int32."""
        flat = [as_int32(row, f"rows[{number}]") for number, row in enumerate(rows)]
        lengths = np.array([len(row) for row in flat], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, np.int32), *flat]), offsets_of(lengths))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,) number of values in each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} rows")
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[np.int32]]:
        return (self[row] for row in range(len(self)))


def as_int32(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int32]:
    """``values`` (n,) as int32; raises `DataError` naming them unless they are integers that fit."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name}: expected a sequence of integers, got a nested one") from error
    if array.shape == (0,):
        return np.zeros(0, dtype=np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{name}: expected a sequence of integers, got {array.dtype} of shape {array.shape}")
    if array.dtype == np.int32:
        return array
    narrow = array.astype(np.int32)
    changed = narrow != array
    if changed.any():
        raise DataError(f"{name}: expected integers that fit int32, got {array[changed][0]}")
    return narrow


def offsets_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(rows + 1,) int64 row boundaries of rows with these (rows,) ``lengths``."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def take_ranges(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> Ragged:
    """Copy ``values[starts[i]:stops[i]]`` into row ``i``, for (rows,) int64 ``starts`` and ``stops``."""
    lengths = stops - starts
    offsets = offsets_of(lengths)
    source = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return Ragged(values[source], offsets)
