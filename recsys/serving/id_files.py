"""Files of ids that a command is given: of users, and of items that may be recommended or may not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.catalog import Catalog
from ..data.ids import shown
from ..data.table_files import is_pattern, is_table_name
from ..data.tables import read_columns, require_no_nulls
from ..errors import DataError
from ..files import usable

logger = logging.getLogger(__name__)


def read_ids(path: Path, column: str, *, option: str) -> list[Any]:
    """The ids of a file, in its order: those of ``column`` of a table (see `data.table_files`), or of a text in UTF-8
    with one id a line, without the spaces around it and empty lines.

    A file is a text unless its name ends as that of a table. Raises `DataError` that names the file where there is
    none or no id, and `ConfigError` that names the ``option`` where the system refuses it.
    """
    with usable(option, "a file that can be read"):
        if not (path.exists() or is_pattern(path)):
            raise DataError(f"{path}: no such file")
        if not path.is_file() or is_table_name(path):
            table = read_columns(path, ids=[column])
            require_no_nulls(table, [column], str(path))
            return table[column].to_pylist()
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: cannot be read as text ({error})") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path}: expected one id a line, got none")
    return ids


def read_items(path: Path, column: str, catalog: Catalog, *, option: str) -> npt.NDArray[np.int32]:
    """The items (n,) of the catalog that a file of `read_ids` names; others are left out with one warning. Raises
    `DataError` where none is known."""
    labels = read_ids(path, column, option=option)
    items = catalog.ids(labels)
    if (items < 0).all():
        raise DataError(f"{path}: expected items of the catalog ({len(catalog)} of them), got none but {shown(labels)}")
    if (items < 0).any():
        unknown = [label for label, item in zip(labels, items.tolist(), strict=True) if item < 0]
        logger.warning(
            "%s: left out %d of %d items that are not in the catalog: %s",
            path,
            len(unknown),
            len(labels),
            shown(unknown),
        )
    return items[items >= 0]
