"""Read columns of Parquet, CSV and TSV data, with errors that name the file and the column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ..errors import DataError

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv"}


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read ``columns`` of a file whose name ends in .parquet, .pq, .csv or .tsv; raises `DataError`."""
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
    return parse_columns(buffer, columns, format=FORMATS[path.suffix.lower()], source=str(path))


def parse_columns(data: pa.Buffer, columns: Sequence[str], *, format: str, source: str) -> pa.Table:
    """Read ``columns`` of a whole file in memory.

    ``format`` is ``parquet``, ``csv``, ``tsv``, or ``raw-tsv`` (quotes are plain characters). ``source``
    names the file in errors. Raises `DataError` if the data cannot be parsed, lacks a column or has no rows.
    """
    try:
        if format == "parquet":
            file = pq.ParquetFile(pa.BufferReader(data))
            _require_columns(columns, file.schema_arrow.names, source)
            table = file.read(columns=list(columns))
        else:
            parse = pacsv.ParseOptions(
                delimiter="," if format == "csv" else "\t",
                quote_char=False if format == "raw-tsv" else '"',
            )
            with pacsv.open_csv(pa.BufferReader(data), parse_options=parse) as reader:
                _require_columns(columns, reader.schema.names, source)
            convert = pacsv.ConvertOptions(include_columns=list(columns), strings_can_be_null=True)
            table = pacsv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(f"{source}: cannot be read as {format} ({error})") from error
    if table.num_rows == 0:
        raise DataError(f"{source}: the file has a header but no rows")
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
