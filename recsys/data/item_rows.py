"""The rows of a table that tell of a catalog's items."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import DataError
from .catalog import Catalog
from .tables import read_columns, require_no_nulls

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ItemRows:
    """``items`` (n,) int32 are the items of ``catalog`` that the rows of ``table`` tell of, -1 for others; ``source``
    names the file in messages."""

    table: pa.Table
    items: npt.NDArray[np.int32]
    catalog: Catalog
    source: str


def read_item_rows(path: str | Path, catalog: Catalog, *, item_column: str, columns: Sequence[str]) -> ItemRows:
    """Reads ``columns`` of a table of items, in CSV and TSV as text as written.

    How many items the file lacks is logged. Raises `DataError` naming file and column for what cannot be read, for an
    empty id and for a file with none of the items.
    """
    path = Path(path)
    table = read_columns(path, ids=[item_column], text=columns)
    require_no_nulls(table, [item_column], str(path))
    items = catalog.ids(table[item_column].to_pylist())
    missing = len(catalog) - len(np.unique(items[items >= 0]))
    if missing == len(catalog):
        raise DataError(f"{path}: column {item_column!r} has none of the {len(catalog)} items of the data")
    if missing:
        logger.warning("%s: %d of %d items have no features", path, missing, len(catalog))
    return ItemRows(table, items, catalog, str(path))
