"""The files that recommendations are written to, part by part."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ..errors import ConfigError
from ..files import replacing, usable
from .long_table import id_array, written
from .recommendations import Recommended

Write = Callable[[Recommended], None]

_EXPECTED = "a file that can be written"


def check_output(path: Path) -> None:
    """Raises ``ConfigError`` for a file that `write_recommendations` could not write: before the work, not after it."""
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"output: expected a file name that ends in {', '.join(_FORMATS)}, got {path.name!r}")
    with usable("output", _EXPECTED):
        if path.is_dir() or not path.parent.is_dir():
            raise ConfigError(f"output: expected a file in a folder that exists, got {path}")


def write_recommendations(parts: Iterable[Recommended], path: Path) -> int:
    """Writes each part as it comes and returns the number of users; the file is the old one until all is written.

    Raises ``ConfigError`` for what `check_output` refuses, and where the system does. JSON and Parquet have a
    row a user: ``user_id`` and the lists ``items``, ``names`` and ``scores``. CSV and JSON lines have a row an item, as
    `recommendation_table`.
    """
    check_output(path)
    users = 0
    with usable("output", _EXPECTED), replacing(path) as temporary, _FORMATS[path.suffix.lower()](temporary) as write:
        for part in parts:
            write(part)
            users += len(part)
    return users


@contextlib.contextmanager
def _json(path: Path) -> Iterator[Write]:
    """A list of objects, indented."""
    with path.open("w", encoding="utf-8") as file:
        before = "[\n "

        def write(part: Recommended) -> None:
            nonlocal before
            for row in part.rows():
                record = {"user_id": row.user, "items": row.items, "names": row.names, "scores": row.scores}
                file.write(before + json.dumps(record, indent=1, ensure_ascii=False).replace("\n", "\n "))
                before = ",\n "

        yield write
        file.write("[]\n" if before.startswith("[") else "\n]\n")


@contextlib.contextmanager
def _json_lines(path: Path) -> Iterator[Write]:
    """An object a line."""
    with path.open("w", encoding="utf-8") as file:

        def write(part: Recommended) -> None:
            for record in part.table().to_pylist():
                file.write(json.dumps(record | {"score": written(record["score"])}, ensure_ascii=False) + "\n")

        yield write


def _user_table(part: Recommended) -> pa.Table:
    rows = list(part.rows())
    label = id_array(part.catalog.labels[:0]).type
    return pa.table(
        {
            "user_id": id_array(part.requests.users),
            "items": pa.array([row.items for row in rows], pa.list_(label)),
            "names": pa.array([row.names for row in rows], pa.list_(pa.string())),
            "scores": pa.array([row.scores for row in rows], pa.list_(pa.float32())),
        }
    )


@contextlib.contextmanager
def _tables(
    path: Path, open_file: Callable[[Path, pa.Schema], Any], table_of: Callable[[Recommended], pa.Table]
) -> Iterator[Write]:
    """Tables of parts, one after the other."""
    with contextlib.ExitStack() as stack:
        file: Any = None

        def write(part: Recommended) -> None:
            nonlocal file
            table = table_of(part)
            file = file or stack.enter_context(open_file(path, table.schema))
            file.write_table(table)

        yield write


_FORMATS: dict[str, Callable[[Path], AbstractContextManager[Write]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": lambda path: _tables(path, pacsv.CSVWriter, Recommended.table),
    ".parquet": lambda path: _tables(path, pq.ParquetWriter, _user_table),
}
