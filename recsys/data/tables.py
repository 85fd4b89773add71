"""Read columns of tables in Parquet, CSV, TSV and JSON lines, with errors that name the file and the column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from ..errors import DataError
from .ids import id_column, is_text, without_empty
from .table_files import TableFile, table_files

DELIMITERS = {"csv": (",", ";"), "tsv": ("\t",), "raw-tsv": ("\t",)}
"""What may stand between the cells of a format: the first with which the header has the columns."""

_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class MissingColumnError(DataError):
    """A table lacks a column."""


def read_columns(
    path: Path, *, ids: Sequence[str] = (), text: Sequence[str] = (), values: Sequence[str] = ()
) -> pa.Table:
    """Read columns of the files of ``path``, one after the other (see `table_files`), as `parse_columns` does; a column
    may be in the names of their folders (``day=2024-01-02``). Raises `DataError`."""
    columns, as_text = list(dict.fromkeys([*ids, *text, *values])), [*ids, *text]
    files = table_files(path)
    parts = [_with_partition(file, columns, as_text) for file in files]
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{path}: a column has different types in different files ({error})") from error
    written = {name for name in as_text for file in files if _is_written(file.format) or name in file.partition}
    return _with_ids(table, ids, written, str(path))


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

    ``format`` is ``parquet``, ``csv`` (cells between commas or semicolons), ``tsv``, ``raw-tsv`` (quotes are plain
    characters), or ``jsonl`` (an object a line); ``source`` names the file in errors. ``ids`` come as `id_column` makes
    them. In files without types, ``text`` is what is written, empty cells null, and the types of ``values`` follow from
    what is written, ``NA`` and the like null. Raises `DataError` if the data cannot be parsed, lacks a column or has no
    rows, and for ids of another type.
    """
    columns, as_text = list(dict.fromkeys([*ids, *text, *values])), [*ids, *text]
    table = _parse(data, columns, as_text, format, source)
    return _with_ids(table, ids, as_text if _is_written(format) else (), source)


def _with_ids(table: pa.Table, ids: Sequence[str], written: Iterable[str], source: str) -> pa.Table:
    """``table`` with `id_column`s; those ``written`` are text that may mean integers."""
    if table.num_rows == 0:
        raise DataError(f"{source}: the file has a header but no rows")
    for name in ids:
        column = id_column(table[name], as_written=name in written, source=source, name=name)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _is_written(format: str) -> bool:
    """Whether cells are text, whatever they mean."""
    return format in DELIMITERS


def _with_partition(file: TableFile, columns: list[str], as_text: list[str]) -> pa.Table:
    """The ``columns`` of a file; what the names of its folders tell is the same in each row."""
    source = str(file.path)
    own = [name for name in columns if name not in file.partition]
    table = _parse(file.read(), own, as_text, file.format, source)
    for name in columns:
        if name in file.partition:
            value = _meant(file.partition[name], name in as_text)
            table = table.append_column(
                name, pa.chunked_array([value.take(pa.array(np.zeros(table.num_rows, np.int64)))])
            )
    return table.select(columns)


def _meant(told: str | None, as_text: bool) -> pa.Array:
    """A value that a folder's name tells: text, or of the type that it would have in a CSV file."""
    if as_text or told is None:
        return pa.array([told], pa.string() if as_text else pa.null())
    cell = '"' + told.replace('"', '""') + '"'
    return pacsv.read_csv(pa.py_buffer(f"value\n{cell}\n".encode()))["value"].combine_chunks()


def _parse(data: pa.Buffer, columns: list[str], as_text: list[str], format: str, source: str) -> pa.Table:
    try:
        if format == "parquet":
            table = _parse_parquet(data, columns, source)
        elif format == "jsonl":
            table = _parse_json(data, columns, as_text, source)
        else:
            table = _parse_text(data, columns, as_text, format, source)
        table.validate(full=True)  # text that is no UTF-8
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = None if format == "parquet" else _encoding(data, error)
        raise DataError(f"{source}: cannot be read as {format} ({reason or error})") from error
    return table


def _encoding(data: pa.Buffer, reason: Exception) -> str | None:
    """What is wrong with the encoding of a text, if that is the ``reason`` why it cannot be read."""
    if (mark := _MARKS.get(data[:2].to_pybytes())) is not None:
        return f"expected UTF-8, got {mark} by its first bytes; iconv -f {mark} -t UTF-8 makes one of the other"
    if "utf" not in str(reason).lower():
        return None
    try:
        str(memoryview(data), "utf-8")
    except UnicodeDecodeError as error:
        line = bytes(data[: error.start]).count(b"\n") + 1
        return (
            f"expected UTF-8, got the byte 0x{data[error.start] & 0xFF:02x} in line {line}, as of Latin-1 or "
            "Windows-1252; iconv -f WINDOWS-1252 -t UTF-8 makes one of the other"
        )
    return None


def _parse_parquet(data: pa.Buffer, columns: list[str], source: str) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(data))
    _require_columns(columns, file.schema_arrow.names, source)
    return file.read(columns=columns).select(columns)


def _parse_json(data: pa.Buffer, columns: list[str], as_text: list[str], source: str) -> pa.Table:
    table = pajson.read_json(pa.BufferReader(data))
    _require_columns(columns, table.column_names, source)
    dates = [name for name in as_text if pa.types.is_timestamp(table.schema.field(name).type)]
    if dates:  # text that looks like one
        schema = pa.schema([(name, pa.string()) for name in dates])
        parse = pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer")
        table = pajson.read_json(pa.BufferReader(data), parse_options=parse)
    return table.select(columns)


def _parse_text(data: pa.Buffer, columns: list[str], as_written: list[str], format: str, source: str) -> pa.Table:
    parse = _cells(data, columns, format, source)
    convert = pacsv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(as_written, pa.string()),
        strings_can_be_null=False,  # or NA and null would be no text
    )
    table = pacsv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=convert)
    for place, name in enumerate(columns):
        if is_text(table[name].type):
            table = table.set_column(place, name, without_empty(table[name]))
    return table


def _cells(data: pa.Buffer, columns: list[str], format: str, source: str) -> pacsv.ParseOptions:
    """How the text of a ``format`` comes apart so that its header has the ``columns``."""
    quote = False if format == "raw-tsv" else '"'
    # a quoted cell may hold a line break, which costs the reader its threads
    breaks = bool(quote) and bool((np.frombuffer(data, np.uint8) == ord('"')).any())
    header: list[str] = []
    problem: pa.ArrowException | None = None
    for delimiter in DELIMITERS[format]:
        parse = pacsv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=breaks)
        try:
            with pacsv.open_csv(pa.BufferReader(data), parse_options=parse) as reader:
                names = reader.schema.names
        except pa.ArrowException as error:  # rows of different lengths, as of decimal commas between semicolons
            problem = problem or error
            continue
        if set(columns) <= set(names):
            _require_columns(columns, names, source)
            return parse
        header = max(header, names, key=len)
    if problem is not None and len(header) < 2:
        raise problem
    _require_columns(columns, header, source)
    raise AssertionError("a column that no header has is missing in each")


def _require_columns(columns: Sequence[str], found: Sequence[str], source: str) -> None:
    for column in columns:
        if column not in found:
            raise MissingColumnError(f"{source}: no column {column!r}; the file has {', '.join(map(repr, found))}")
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
