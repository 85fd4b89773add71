"""Ids of users and items: names, which are kept as they are written and match by what they say.

An id is an integer or a text. In Parquet the column's type tells which. In CSV and TSV a column holds integers if every
cell is one as Python prints it (``7``, ``-3``; not ``007``, ``+7``, ``1E5``, ``0x1F`` or ``7.0``), and otherwise text.
A column has one type; if an integer of it is beyond int64, all are text of the same digits.

Where tables are joined, an id is found by its text: 7 is "7", and "007" is another item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError


def id_column(column: pa.ChunkedArray, *, as_written: bool, source: str, name: str) -> pa.ChunkedArray:
    """A file's column of ids as int64 or large_string, empty text as null.

    ``as_written`` says that its text is that of a CSV or TSV file, where it may mean integers. Raises `DataError` for a
    column of anything but text, integers and decimals without a fraction.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if is_text(kind) or pa.types.is_null(kind):
        if as_written and (numbers := _plain_integers(column)) is not None:
            return numbers
        return without_empty(column.cast(pa.large_string()))  # large, so that any amount of text fits one array
    if pa.types.is_integer(kind):
        return _integers(column)
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return _integers(column.cast(pa.decimal256(76, 0)))
    raise DataError(f"{source}: column {name!r} must hold integers or text, got {kind}")


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def without_empty(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text with nulls in place of empty ones."""
    if text.index(pa.scalar("", text.type)).as_py() < 0:
        return text
    return pc.if_else(pc.equal(text, ""), None, text)  # pyright: ignore[reportAttributeAccessIssue]


def _plain_integers(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The integers that are written, None unless all of them read back as what is written."""
    try:
        numbers = text.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return numbers if numbers.cast(text.type).equals(text) else None


def _integers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.large_string())


def dense_ids(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
    """Ids 0, 1, .. (n,) int32 of an `id_column` without nulls, and the distinct values that they number, sorted."""
    if pa.types.is_integer(column.type) and len(column):
        values = column.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < _SPARSEST * len(values):
            return _dense_integers(values - low, high - low + 1, low)
    encoded = column.combine_chunks().dictionary_encode()
    labels = encoded.dictionary.to_numpy(zero_copy_only=False)
    order = np.argsort(labels, kind="stable")
    id_of_code = np.empty(len(labels), dtype=np.int32)
    id_of_code[order] = np.arange(len(labels), dtype=np.int32)
    return id_of_code[encoded.indices.to_numpy()], labels[order]


_SPARSEST = 4
"""Integers are numbered by a table of all between the least and the largest, where it has at most so many places a
value: five times as fast as by hashing."""


def _dense_integers(
    places: npt.NDArray[np.int64], size: int, low: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    occurs = np.zeros(size, dtype=np.bool_)
    occurs[places] = True
    labels = np.flatnonzero(occurs)
    ids = np.empty(size, dtype=np.int32)
    ids[labels] = np.arange(len(labels), dtype=np.int32)
    return ids[places], labels + low


SHOWN = 3
"""Labels that a message about many of them names."""


def shown(labels: Sequence[Any]) -> str:
    """The first of many labels, as a message names them."""
    return ", ".join(map(repr, labels[:SHOWN])) + (", .." if len(labels) > SHOWN else "")


def places(labels: Iterable[Any]) -> dict[str, int]:
    """The place of each label by its text, in which ids of any type are looked up."""
    return {str(label): place for place, label in enumerate(labels)}
