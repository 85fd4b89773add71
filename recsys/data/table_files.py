"""The files that a table is read from: one, the parts in a folder, or those that a pattern names."""

from __future__ import annotations

import glob
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ..errors import DataError

FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""By the last ending of a name, behind that of the format; Parquet compresses itself."""

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class TableFile:
    """A file of a ``format``. ``partition`` holds the columns that the names of its folders tell, as in Hive:
    ``day=2024-01-02``; None is no value."""

    path: Path
    format: str
    compression: str | None = None
    partition: dict[str, str | None] = field(default_factory=dict)

    def read(self) -> pa.Buffer:
        """What it holds, without its compression; raises `DataError`."""
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.path}: the file is empty")
        try:
            if self.compression is None:
                return pa.memory_map(str(self.path)).read_buffer()
            with pa.input_stream(str(self.path), compression=self.compression) as stream:
                return stream.read_buffer()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from error


def table_files(path: Path) -> list[TableFile]:
    """The files of ``path``, in the order of their names: itself, all of a folder and the folders in it, or what a
    pattern with ``*``, ``?`` or ``[`` matches.

    In a folder, names that begin with ``_`` or ``.`` are no parts, as Spark and Hive have it. Raises `DataError` where
    there is none, for another ending, and for parts of several formats.
    """
    if path.is_file():
        return [_table_file(path, {})]
    if path.is_dir():
        found = list(_parts(path, {}))
    elif is_pattern(path):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        found = [
            part for match in matches for part in (_parts(match, {}) if match.is_dir() else [_table_file(match, {})])
        ]
        if not matches:
            raise DataError(f"{path}: no file matches")
    else:
        _table_file(path, {})
        raise DataError(f"{path}: no such file")
    if not found:
        raise DataError(f"{path}: expected files that end in {', '.join(FORMATS)}, got a folder without any")
    formats = sorted({part.format for part in found})
    if len(formats) > 1:
        raise DataError(f"{path}: expected parts of one format, got {' and '.join(formats)}")
    return found


def is_table_name(path: Path) -> bool:
    """Whether a file's name ends as that of a table."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return bool(suffixes) and (suffixes[-1] in FORMATS or suffixes[-1] in COMPRESSIONS)


def is_pattern(path: str | Path) -> bool:
    return any(character in str(path) for character in "*?[")


def _parts(folder: Path, partition: dict[str, str | None]) -> Iterator[TableFile]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(("_", ".")):
            continue
        if entry.is_dir():
            key, is_partition, value = entry.name.partition("=")
            decoded = urllib.parse.unquote(value)
            own = {key: None if value == _NO_VALUE else decoded} if is_partition else {}
            yield from _parts(entry, partition | own)
        else:
            yield _table_file(entry, partition)


def _table_file(path: Path, partition: dict[str, str | None]) -> TableFile:
    *_, before, last = ("", "", *(suffix.lower() for suffix in path.suffixes))
    compression = COMPRESSIONS.get(last)
    ending = last if compression is None else before
    if ending not in FORMATS or (compression and FORMATS[ending] == "parquet"):
        endings = f"{', '.join(FORMATS)}, or of text with {' or '.join(COMPRESSIONS)} behind it"
        raise DataError(f"{path}: expected a file name that ends in {endings}, got {path.name!r}")
    return TableFile(path, FORMATS[ending], compression, partition)
