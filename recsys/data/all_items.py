"""A catalog of more items than those with events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .interactions import Interactions
from .tables import read_columns, require_no_nulls


def with_items(interactions: Interactions, path: str | Path, *, item_column: str) -> Interactions:
    """The same events among their own items and all of a Parquet, CSV or TSV file's, numbered anew.

    Ids match by their text; where those of the events and of the file differ in type, all are text. Items come in the
    order of their ids, and may come again in the file; those without a title get their id. Raises `DataError` for a
    file or a column that cannot be read, and for empty ids.
    """
    path = Path(path)
    table = read_columns(path, ids=[item_column])
    require_no_nulls(table, [item_column], str(path))
    known, others = interactions.item_labels, _distinct(table[item_column])
    if known.dtype != others.dtype:
        known, others = (np.array([str(label) for label in labels.tolist()], object) for labels in (known, others))
    labels = np.union1d(known, others)
    place = np.searchsorted(labels, known).astype(np.int32)
    titles = interactions.item_titles
    if titles is not None:
        of_known = dict(zip(place.tolist(), titles, strict=True))
        titles = [of_known.get(number, str(label)) for number, label in enumerate(labels.tolist())]
    return replace(interactions, item=place[interactions.item], item_labels=labels, item_titles=titles)


def _distinct(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    if pa.types.is_integer(column.type):  # of which sorting leaves one each
        return column.to_numpy()
    return column.unique().to_numpy(zero_copy_only=False)
