"""User-item events with dense ids, in order of user and time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import DataError
from .ids import dense_ids
from .ragged import offsets_of
from .tables import read_columns, require_no_nulls

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events sorted by (user, time); events of one user at one time keep the order of the file.

    ``user`` and ``item`` are (n,) int32 dense ids, ``time`` (n,) int64. ``user_labels`` (num_users,) and
    ``item_labels`` (num_items,) hold the original ids, int64 or text, sorted; ``item_titles`` holds one text an item,
    or is None. ``source`` names the data in messages. ``rating`` is (n,) float64, or None if ratings were not read.
    """

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    user_labels: npt.NDArray[Any]
    item_labels: npt.NDArray[Any]
    item_titles: list[str] | None = None
    source: str = "interactions"
    rating: npt.NDArray[np.float64] | None = None

    @property
    def num_users(self) -> int:
        """Number of distinct users; every one has at least one event."""
        return len(self.user_labels)

    @property
    def num_items(self) -> int:
        """Number of items; some have no event where a file of items was read."""
        return len(self.item_labels)

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
) -> Interactions:
    """Read Parquet, CSV, TSV or JSON lines with one event a row: a file, by the ending of its name, a folder of parts,
    or a pattern (see `data.table_files`).

    Users and items are integers or text (see `data.ids`: in CSV, ``007`` is a text), times whole numbers, dates or
    timestamps, ratings numbers (``rating_column`` None reads none). Repeated events are kept; rows out of order are
    sorted with a logged notice. ``titles`` is a file with ``item_column`` and ``title_column``; items that it lacks are
    titled by their id. Raises `DataError` naming the file and column for missing files and columns, empty files, empty
    values and unusable types.
    """
    path = Path(path)
    columns = [user_column, item_column, time_column]
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{path}: user, item and time must be three columns, got {repeated[0]!r} more than once")
    if rating_column in columns:
        raise DataError(f"{path}: ratings must be a column of their own, got {rating_column!r} twice")
    values = [time_column] if rating_column is None else [time_column, rating_column]
    interactions = from_table(
        read_columns(path, ids=(user_column, item_column), values=values),
        source=str(path),
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        rating_column=rating_column,
        sort_notice=True,
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
) -> Interactions:
    """Number and sort the events of a table whose users and items are `id_column` columns; ``sort_notice`` logs when
    times within a user go backwards."""
    columns = (user_column, item_column, time_column)
    require_no_nulls(table, columns if rating_column is None else (*columns, rating_column), source)
    user, user_labels = dense_ids(table[user_column])
    item, item_labels = dense_ids(table[item_column])
    time = _times(table[time_column], source, time_column)
    rating = None if rating_column is None else _ratings(table[rating_column], source, rating_column)

    order = np.argsort(user, kind="stable")
    user, sorted_time = user[order], time[order]
    if ((sorted_time[1:] < sorted_time[:-1]) & (user[1:] == user[:-1])).any():
        if sort_notice:
            logger.warning("%s: rows are not in order of column %r for each user; sorted them", source, time_column)
        order = order[np.lexsort((sorted_time, user))]
        sorted_time = time[order]
    rating = None if rating is None else rating[order]
    return Interactions(user, item[order], sorted_time, user_labels, item_labels, source=source, rating=rating)


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


def _ratings(column: pa.ChunkedArray, source: str, name: str) -> npt.NDArray[np.float64]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{source}: column {name!r} must hold numbers, got {kind}")
    return column.cast(pa.float64(), safe=False).to_numpy()


def _times(column: pa.ChunkedArray, source: str, name: str) -> npt.NDArray[np.int64]:
    kind = column.type
    try:
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("s"))
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)):
            raise DataError(f"{source}: column {name!r} must hold whole numbers, dates or timestamps, got {kind}")
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"{source}: column {name!r} cannot be read as times, got {kind} ({error})") from error
