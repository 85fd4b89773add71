"""A catalog of more items than those with events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from .ids import dense_ids
from .interactions import Interactions
from .tables import read_columns, require_no_nulls


def with_items(interactions: Interactions, path: str | Path, *, item_column: str) -> Interactions:
    """The same events among their own items and all of a file's, numbered anew.

    Ids match by their text; where those of the events and of the file differ in type, all are text. Items come in the
    order of their ids, and may come again in the file; those without a title get their id. Raises `DataError` for a
    file or a column that cannot be read, and for empty ids.
    """
    path = Path(path)
    table = read_columns(path, ids=[item_column])
    require_no_nulls(table, [item_column], str(path))
    columns = [pa.chunked_array([pa.array(interactions.item_labels)]), table[item_column]]
    if pa.types.is_integer(columns[0].type) != pa.types.is_integer(columns[1].type):
        columns = [column.cast(pa.large_string()) for column in columns]
    chunks = [chunk for column in columns for chunk in column.cast(columns[1].type).chunks]
    numbers, labels = dense_ids(pa.chunked_array(chunks))
    place = numbers[: len(columns[0])]
    titles = interactions.item_titles
    if titles is not None:
        of_known = dict(zip(place.tolist(), titles, strict=True))
        titles = [of_known.get(number, str(label)) for number, label in enumerate(labels.tolist())]
    return replace(interactions, item=place[interactions.item], item_labels=labels, item_titles=titles)
