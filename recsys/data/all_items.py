"""A catalog of more items than those with events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .catalog import Catalog
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
    return _with_labels(interactions, table[item_column])[0]


def with_catalog(interactions: Interactions, catalog: Catalog) -> Interactions:
    """The same of a ``catalog``, whose titles are those of the items that it adds."""
    joined, numbers = _with_labels(interactions, pa.chunked_array([pa.array(catalog.labels)]))
    if joined.item_titles is None or catalog.titles is None:
        return joined
    own, others = np.split(numbers, [interactions.num_items])
    titles = dict(zip(others.tolist(), catalog.titles, strict=True))
    titles |= {number: joined.item_titles[number] for number in own.tolist()}
    return replace(joined, item_titles=[titles[number] for number in range(joined.num_items)])


def _with_labels(interactions: Interactions, column: pa.ChunkedArray) -> tuple[Interactions, npt.NDArray[np.int32]]:
    """The events among their own items and those of a column, and the numbers of the former and then of the latter."""
    columns = [pa.chunked_array([pa.array(interactions.item_labels)]), column]
    if pa.types.is_integer(columns[0].type) != pa.types.is_integer(columns[1].type):
        columns = [column.cast(pa.large_string()) for column in columns]
    chunks = [chunk for column in columns for chunk in column.cast(columns[1].type).chunks]
    numbers, labels = dense_ids(pa.chunked_array(chunks))
    place = numbers[: len(columns[0])]
    titles = interactions.item_titles
    if titles is not None:
        of_known = dict(zip(place.tolist(), titles, strict=True))
        titles = [of_known.get(number, str(label)) for number, label in enumerate(labels.tolist())]
    joined = replace(interactions, item=place[interactions.item], item_labels=labels, item_titles=titles)
    return joined, numbers
