"""Logs in memory: Arrow tables, data frames of any library that speaks Arrow's C interface, and columns by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..files import replacing

Log = Any
"""A path or a pattern, as `table_files` says, the name of a data set, or what `arrow_table` takes."""


def arrow_table(log: Log, *, source: str) -> pa.Table:
    """``log`` as an Arrow table: a pyarrow Table, a data frame of pandas, Polars or another library with
    ``__arrow_c_stream__`` (https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html), or a mapping
    of names to columns. Raises `DataError` for anything else."""
    try:
        return log if isinstance(log, pa.Table) else pa.table(log)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{source}: expected a path, an Arrow table, a data frame or a mapping of columns, got "
            f"{type(log).__name__} ({error})"
        ) from error


def write_table(log: Log, columns: Sequence[str], path: Path, *, source: str) -> None:
    """Writes those ``columns`` of a table in memory to a Parquet file, by a rename; raises `DataError` for one that is
    missing or there twice."""
    table = _chosen(log, columns, source)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def same_tables(log: Log, path: Path, columns: Sequence[str], *, source: str) -> bool:
    """Whether `write_table` would write what is there."""
    return _chosen(log, columns, source).equals(pq.read_table(path))


def _chosen(log: Log, columns: Sequence[str], source: str) -> pa.Table:
    table = arrow_table(log, source=source)
    for name in columns:
        if (found := table.column_names.count(name)) != 1:
            there = ", ".join(map(repr, table.column_names))
            raise DataError(
                f"{source}: expected one column {name!r}, got {found} among {there} (user_column and so on)"
            )
    return pa.table({name: _plain(table[name]) for name in columns})


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without encodings that Parquet's readers do not share, such as those of categories."""
    if pa.types.is_dictionary(column.type):
        values = [_plain(pa.chunked_array([chunk.dictionary])).combine_chunks() for chunk in column.chunks]
        column = pa.chunked_array(
            [each.take(chunk.indices) for each, chunk in zip(values, column.chunks, strict=True)],
            values[0].type if values else column.type.value_type,
        )
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column
