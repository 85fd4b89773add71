"""Read columns of Parquet, CSV and TSV data, with errors that name the file and the column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ..errors import DataError
from .ids import id_column, without_empty

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv"}


def read_columns(
    path: Path, *, ids: Sequence[str] = (), text: Sequence[str] = (), values: Sequence[str] = ()
) -> pa.Table:
    """Read columns of a .parquet, .pq, .csv or .tsv file as `parse_columns` does; raises `DataError`."""
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: expected a file name that ends in {', '.join(FORMATS)}, got {path.name!r}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        buffer = pa.memory_map(str(path)).read_buffer()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    format = FORMATS[path.suffix.lower()]
    return parse_columns(buffer, ids=ids, text=text, values=values, format=format, source=str(path))


def parse_columns(
    data: pa.Buffer,
    *,
    ids: Sequence[str] = (),
    text: Sequence[str] = (),
    values: Sequence[str] = (),
    format: str,
    source: str,
) -> pa.Table:
    """Read columns of a whole file in memory, in the order ``ids``, ``text``, ``values``.

    ``format`` is ``parquet``, ``csv``, ``tsv``, or ``raw-tsv`` (quotes are plain characters); ``source`` names the file
    in errors. ``ids`` come as `id_column` makes them. In files without types, ``text`` is what is written, empty cells
    null, and the types of ``values`` follow from what is written, ``NA`` and the like null. Raises `DataError` if the
    data cannot be parsed, lacks a column or has no rows, and for ids of another type.
    """
    columns = list(dict.fromkeys([*ids, *text, *values]))
    typed = format == "parquet"
    try:
        if typed:
            table = _parse_parquet(data, columns, source)
        else:
            table = _parse_text(data, columns, [*ids, *text], format, source)
        table.validate(full=True)  # text that is no UTF-8
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(f"{source}: cannot be read as {format} ({error})") from error
    if table.num_rows == 0:
        raise DataError(f"{source}: the file has a header but no rows")
    for name in ids:
        column = id_column(table[name], as_written=not typed, source=source, name=name)
        table = table.set_column(columns.index(name), name, column)
    return table


def _parse_parquet(data: pa.Buffer, columns: list[str], source: str) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(data))
    _require_columns(columns, file.schema_arrow.names, source)
    return file.read(columns=columns).select(columns)


def _parse_text(data: pa.Buffer, columns: list[str], as_written: list[str], format: str, source: str) -> pa.Table:
    delimiter, quote = "," if format == "csv" else "\t", False if format == "raw-tsv" else '"'
    parse = pacsv.ParseOptions(delimiter=delimiter, quote_char=quote)
    with pacsv.open_csv(pa.BufferReader(data), parse_options=parse) as reader:
        _require_columns(columns, reader.schema.names, source)
    convert = pacsv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(as_written, pa.string()),
        strings_can_be_null=False,  # or NA and null would be no text
    )
    table = pacsv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)
    for name in as_written:
        table = table.set_column(columns.index(name), name, without_empty(table[name]))
    return table


def _require_columns(columns: Sequence[str], found: Sequence[str], source: str) -> None:
    for column in columns:
        if column not in found:
            raise DataError(f"{source}: no column {column!r}; the file has {', '.join(map(repr, found))}")
        if found.count(column) > 1:
            raise DataError(f"{source}: column {column!r} occurs {found.count(column)} times")


def require_no_nulls(table: pa.Table, columns: Sequence[str], source: str) -> None:
    """Raise `DataError` for the first null, empty or NaN value of ``columns``."""
    for column in columns:
        empty = np.flatnonzero(table[column].is_null(nan_is_null=True).to_numpy())
        if len(empty):
            raise DataError(
                f"{source}: column {column!r} has {len(empty)} empty values, the first in row {empty[0] + 1}"
            )
