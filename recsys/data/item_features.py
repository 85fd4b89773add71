"""Categories of items, such as genres or brands, as multi-hot features."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import DataError
from .catalog import Catalog
from .ids import is_text
from .item_rows import ItemRows, read_item_rows

logger = logging.getLogger(__name__)

MOST_VALUES = 1024
"""Values of one column that become features, the most frequent ones."""

SEPARATOR = "|"


def read_categories(
    path: str | Path, catalog: Catalog, *, item_column: str, columns: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Reads the categories of items from a file and returns them as `multi_hot` features (V, P)
    float32, one column of the file after the other.

    A cell is a list of values (a Parquet list, or text that is a JSON list), text with "|" between values, or one
    integer, boolean or text; in CSV and TSV it is text as written. A null and an empty text are no value. An item in
    several rows has the values of all of them; how many items the file lacks is logged. Raises `DataError` naming file
    and column for what cannot be read, for columns of other types and for a column without a value for any item.
    """
    return categories(read_item_rows(path, catalog, item_column=item_column, columns=columns), columns)[0]


def categories(rows: ItemRows, columns: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[str]]:
    """`read_categories` of rows that have been read, and P names such as ``genre=Drama``."""
    parts, names = [], []
    for column in columns:
        name = f"{rows.source}: column {column!r}"
        values: list[set[str]] = [set() for _ in range(len(rows.catalog))]
        for item, cell in zip(rows.items.tolist(), _cells(rows.table[column], name), strict=True):
            if item >= 0:
                values[item].update(cell)
        if not any(values):
            raise DataError(f"{name} has a value for none of the {len(rows.catalog)} items of the data")
        parts.append(multi_hot(values, source=name))
        names += [f"{column}={value}" for value in _ranked(values)[:MOST_VALUES]]
    return np.concatenate(parts, axis=1), names


def multi_hot(values: Sequence[set[str]], *, source: str) -> npt.NDArray[np.float32]:
    """Returns (V, P) float32: row j is ``1 / sqrt(n_j)`` at each of item j's ``n_j`` values: its squares sum to 1.

    The columns are the values by how many items have them, the most frequent first and equally frequent ones in order
    of text. Only the first `MOST_VALUES` are kept, and only they count in ``n_j``: a notice that names ``source`` says
    how many were dropped.
    """
    ranked = _ranked(values)
    if len(ranked) > MOST_VALUES:
        logger.warning("%s: kept the %d most frequent of %d values", source, MOST_VALUES, len(ranked))
    place = {value: column for column, value in enumerate(ranked[:MOST_VALUES])}
    features = np.zeros((len(values), len(place)), np.float32)
    for item, row in enumerate(values):
        kept = [place[value] for value in row if value in place]
        if kept:
            features[item, kept] = 1 / np.sqrt(len(kept))
    return features


def _ranked(values: Sequence[set[str]]) -> list[str]:
    """The values, those of the most items first."""
    counts = Counter(value for row in values for value in row)
    return sorted(counts, key=lambda value: (-counts[value], value))


def _cells(column: pa.ChunkedArray, name: str) -> Iterable[list[str]]:
    """The values of each row of a column, as text."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    value = kind.value_type if is_list else kind
    if pa.types.is_dictionary(value):
        value = value.value_type
    if not (is_text(value) or pa.types.is_integer(value) or pa.types.is_boolean(value) or pa.types.is_null(value)):
        raise DataError(f"{name} must hold text, integers, booleans or lists of these, got {kind}")
    split = _elements if is_list else _separated if is_text(value) else lambda cell: [str(cell)]
    return ([] if cell is None else split(cell) for cell in column.to_pylist())


def _elements(cell: Iterable[Any]) -> list[str]:
    return [str(value).strip() for value in cell if value is not None and str(value).strip()]


def _separated(cell: str) -> list[str]:
    if cell.lstrip().startswith("["):
        try:
            return _elements(json.loads(cell))
        except (ValueError, RecursionError):
            pass  # text that only begins like a list
    return _elements(cell.split(SEPARATOR))
