"""User-item events with dense ids, in order of user and time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from .ids import dense_ids, is_text, places
from .ragged import offsets_of
from .tables import MissingColumnError, read_columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events sorted by (user, time); events of one user at one time keep the order of the file.

    ``user`` and ``item`` are (n,) int32 dense ids, ``time`` (n,) int64. ``user_labels`` (num_users,) and
    ``item_labels`` (num_items,) hold the original ids, int64 or text, sorted; ``item_titles`` holds one text an item,
    or is None. ``source`` names the data in messages. ``rating`` is (n,) float64, or None if ratings were not read.
    ``time_unit`` is NumPy's of times since 1970, such as "s", None where the column holds numbers.
    """

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    user_labels: npt.NDArray[Any]
    item_labels: npt.NDArray[Any]
    item_titles: list[str] | None = None
    source: str = "interactions"
    rating: npt.NDArray[np.float64] | None = None
    time_unit: str | None = None

    @property
    def num_users(self) -> int:
        """Number of distinct users; every one has at least one event."""
        return len(self.user_labels)

    @property
    def num_items(self) -> int:
        """Number of items; some have no event where a file of items was read."""
        return len(self.item_labels)

    @cached_property
    def user_places(self) -> dict[str, int]:
        """The users by the texts of their original ids."""
        return places(self.user_labels.tolist())

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(num_users + 1,) int64: user ``u`` has the events ``offsets[u]:offsets[u + 1]``."""
        return offsets_of(np.bincount(self.user, minlength=self.num_users).astype(np.int64))


def read_interactions(
    path: str | Path,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str = "timestamp",
    rating_column: str | None = None,
    titles: str | Path | None = None,
    title_column: str = "title",
    drop_missing: bool = False,
) -> Interactions:
    """Read Parquet, CSV, TSV or JSON lines with one event a row: a file, by the ending of its name, a folder of parts,
    or a pattern (see `data.table_files`).

    Users and items are integers or text (see `data.ids`: in CSV, ``007`` is a text), times whole numbers, dates or
    timestamps, ratings numbers (``rating_column`` None reads none). Repeated events are kept; rows out of order are
    sorted with a logged notice. ``titles`` is a file with ``item_column`` and ``title_column``; items that it lacks are
    titled by their id. Rows with an empty value are an error, or are left out with ``drop_missing`` and a notice of
    their number. Raises `DataError` naming the file and column for missing files and columns, empty files, empty
    values and unusable types; what is wrong with the values of several columns is in one message.
    """
    path = Path(path)
    columns = [user_column, item_column, time_column]
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{path}: user, item and time must be three columns, got {repeated[0]!r} more than once")
    if rating_column in columns:
        raise DataError(f"{path}: ratings must be a column of their own, got {rating_column!r} twice")
    values = [time_column] if rating_column is None else [time_column, rating_column]
    try:
        table = read_columns(path, ids=(user_column, item_column), values=values)
    except MissingColumnError as error:
        raise DataError(f"{error}; user_column, item_column and time_column say what they are called") from error
    interactions = from_table(
        table,
        source=str(path),
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        rating_column=rating_column,
        sort_notice=True,
        drop_missing=drop_missing,
    )
    return interactions if titles is None else read_titles(interactions, titles, item_column, title_column)


def read_titles(interactions: Interactions, path: str | Path, item_column: str, title_column: str) -> Interactions:
    """Attaches the titles of a file; see `read_interactions`."""
    table = read_columns(Path(path), ids=[item_column], text=[title_column])
    return with_titles(interactions, table[item_column], table[title_column], source=str(path))


def from_table(
    table: pa.Table,
    *,
    source: str,
    user_column: str,
    item_column: str,
    time_column: str,
    rating_column: str | None = None,
    sort_notice: bool,
    drop_missing: bool = False,
) -> Interactions:
    """Number and sort the events of a table whose users and items are `id_column` columns; ``sort_notice`` logs when
    times within a user go backwards."""
    columns = (user_column, item_column, time_column)
    columns = columns if rating_column is None else (*columns, rating_column)
    whole, problems = _whole_rows(table, columns, source, drop_missing)
    table = table.take(pa.array(whole)) if len(whole) < table.num_rows else table
    time = rating = None
    try:
        time = _times(table[time_column], time_column, whole)
    except _ColumnError as error:
        problems.append(str(error))
    try:
        rating = None if rating_column is None else _ratings(table[rating_column], rating_column)
    except _ColumnError as error:
        problems.append(str(error))
    if problems:
        raise DataError(f"{source}: {'; '.join(problems)}")
    assert time is not None
    user, user_labels = dense_ids(table[user_column])
    item, item_labels = dense_ids(table[item_column])

    order = np.argsort(user, kind="stable")
    user, sorted_time = user[order], time[order]
    if ((sorted_time[1:] < sorted_time[:-1]) & (user[1:] == user[:-1])).any():
        if sort_notice:
            logger.warning("%s: rows are not in order of column %r for each user; sorted them", source, time_column)
        order = order[np.lexsort((sorted_time, user))]
        sorted_time = time[order]
    rating = None if rating is None else rating[order]
    kind = table[time_column].type
    unit = kind.unit if pa.types.is_timestamp(kind) else "s" if pa.types.is_date(kind) else None
    unit = "us" if is_text(kind) else unit
    return Interactions(
        user, item[order], sorted_time, user_labels, item_labels, source=source, rating=rating, time_unit=unit
    )


def with_titles(
    interactions: Interactions, item: pa.ChunkedArray, title: pa.ChunkedArray, *, source: str
) -> Interactions:
    """Attach the titles of an `id_column`: the first of repeated items counts, items without a title get their id."""
    try:
        texts = title.cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{source}: the titles must be text, got {title.type} ({error})") from error
    by_item: dict[str, str] = {}
    for key, text in zip(item.to_pylist(), texts, strict=True):
        if text is not None:
            by_item.setdefault(str(key), text)
    labels = [str(label) for label in interactions.item_labels.tolist()]
    if by_item.keys().isdisjoint(labels):
        raise DataError(f"{source}: has a title for none of the items of {interactions.source}")
    return replace(interactions, item_titles=[by_item.get(label, label) for label in labels])


class _ColumnError(Exception):
    """What is wrong with a column's values."""


def _whole_rows(
    table: pa.Table, columns: tuple[str, ...], source: str, drop: bool
) -> tuple[Sequence[int] | npt.NDArray[np.int64], list[str]]:
    """The rows without an empty value, and what is to be said of the others; with ``drop`` that is logged."""
    missing = {name: table[name].is_null(nan_is_null=True).to_numpy() for name in columns}
    missing = {name: is_missing for name, is_missing in missing.items() if is_missing.any()}
    if not missing:
        return range(table.num_rows), []
    whole = np.flatnonzero(~np.any(list(missing.values()), axis=0))
    if not drop:
        told = [
            f"column {name!r} has {is_missing.sum()} empty values, the first in row {is_missing.argmax() + 1}"
            for name, is_missing in missing.items()
        ]
        told[-1] += " (drop_missing leaves such rows out)"
        return whole, told
    if not len(whole):
        raise DataError(f"{source}: drop_missing leaves none of {table.num_rows} rows")
    counts = ", ".join(f"{name!r} in {is_missing.sum()}" for name, is_missing in missing.items())
    left_out = table.num_rows - len(whole)
    logger.warning("%s: left out %d of %d rows with an empty value: %s", source, left_out, table.num_rows, counts)
    return whole, []


def _ratings(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float64]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise _ColumnError(f"column {name!r} must hold numbers, got {kind}")
    return column.cast(pa.float64(), safe=False).to_numpy()


def _times(column: pa.ChunkedArray, name: str, rows: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``rows`` are the values' in the file."""
    kind = column.type
    try:
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("s"))
        if is_text(kind) and (moments := _moments(column)) is not None:
            return moments.cast(pa.int64()).to_numpy()
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)):
            sample = _odd_time(column, rows) if is_text(kind) else ""
            raise _ColumnError(f"column {name!r} must hold whole numbers, dates or timestamps, got {kind}{sample}")
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowException as error:
        raise _ColumnError(f"column {name!r} cannot be read as times, got {kind} ({error})") from error


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """What text in ISO 8601 says, with a zone everywhere or nowhere."""
    for zone in (None, "UTC"):
        with contextlib.suppress(pa.ArrowInvalid):
            return column.cast(pa.timestamp("us", zone))
    return None


_TIMES = (r"^-?\d+$", r"^\d{4}-\d{2}-\d{2}", r"^\d{4}-\d{2}-\d{2}.*(Z|[+-]\d{2}:?\d{2})$")
"""Whole numbers, dates and times, times with a zone; text among the latter has some of each."""


def _odd_time(column: pa.ChunkedArray, rows: Sequence[int] | npt.NDArray[np.int64]) -> str:
    """The first text that is not what most of the others are, as a message goes on."""
    kinds = [pc.match_substring_regex(column, pattern).to_numpy() for pattern in _TIMES]  # pyright: ignore
    common = max(kinds, key=lambda is_kind: int(is_kind.sum()))
    odd = np.flatnonzero(~common)
    if not len(odd) and kinds[-1].any():
        odd = np.flatnonzero(kinds[-1] != (2 * kinds[-1].sum() > len(column)))
    if not len(odd):
        return ""
    place = int(odd[0])
    return f", such as {column[place].as_py()!r:.80} in row {rows[place] + 1}"
