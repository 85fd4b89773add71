"""Pretrained vectors of items, and what a model makes of them: dense features, or the first rows of its item table."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import ConfigError, DataError
from .catalog import Catalog
from .pca import principal_components
from .table_files import table_files
from .tables import read_columns, require_no_nulls

logger = logging.getLogger(__name__)

VECTOR = "vector"
"""The column of a file of vectors."""


def read_vectors(
    path: str | Path, catalog: Catalog, *, item_column: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Reads a Parquet file with an item and its vector, a list of numbers, in each row.

    Returns the vectors (V, d) float32, zeros for items that the file lacks, and which items (V,) it has; how many it
    lacks is logged. The first row of an item counts, and a null vector is none. Raises `DataError` naming file and
    column for a file of another format, for lists of different lengths or with values that are no finite numbers, for a
    vector for none of the items, and where all items have the same one.
    """
    path = Path(path)
    if table_files(path)[0].format != "parquet":
        raise DataError(f"{path}: expected a Parquet file of item vectors, got {path.name!r}")
    table = read_columns(path, ids=[item_column], values=[VECTOR])
    require_no_nulls(table, [item_column], str(path))
    table = table.filter(table[VECTOR].is_valid())
    ids = catalog.ids(table[item_column].to_pylist())
    rows = _matrix(table[VECTOR], str(path))
    known, first = np.unique(ids, return_index=True)
    known, first = known[known >= 0], first[known >= 0]
    if len(known) == 0:
        raise DataError(f"{path}: column {VECTOR!r} has a vector for none of the {len(catalog)} items of the data")
    if not np.ptp(rows[first], axis=0).any():
        raise DataError(f"{path}: column {VECTOR!r} must hold vectors that differ from item to item, got one for all")
    if len(known) < len(catalog):
        logger.warning(
            "%s: %d of %d items have no vector; theirs are zeros", path, len(catalog) - len(known), len(catalog)
        )
    vectors = np.zeros((len(catalog), rows.shape[1]), np.float32)
    vectors[known] = rows[first]
    has_vector = np.zeros(len(catalog), np.bool_)
    has_vector[known] = True
    return vectors, has_vector


def dense_features(
    vectors: npt.NDArray[np.float32], has_vector: npt.NDArray[np.bool_], *, dim: int = 0
) -> npt.NDArray[np.float32]:
    """Returns ``(x - mean) / (std sqrt(P))`` (V, P) float32, column by column, of the items that have a vector, and
    zeros for others.

    x are the vectors, or with ``dim`` their first so many principal components. Over sqrt(P), because the squares of a
    row then sum to 1 on average, as those of a categorical column do: a wide vector does not drown the item table. A
    constant column becomes zeros. Raises `ConfigError` for a ``dim`` above the vectors' length.
    """
    if dim > vectors.shape[1]:
        raise ConfigError(
            f"item_vectors_dim: expected at most the {vectors.shape[1]} columns of the vectors, got {dim}"
        )
    known = vectors[has_vector].astype(np.float64)
    if dim:
        known = principal_components(known, dim)
    constant = np.ptp(known, axis=0) == 0
    scale = np.where(constant, np.inf, known.std(axis=0)) * np.sqrt(known.shape[1])
    return _spread((known - known.mean(axis=0)) / scale, has_vector)


def initial_rows(
    vectors: npt.NDArray[np.float32], has_vector: npt.NDArray[np.bool_], *, dim: int
) -> npt.NDArray[np.float32]:
    """Returns the first ``dim`` principal components (V, dim) float32 of the items' vectors, zeros for items without.

    All are divided by one number, the standard deviation of all values; columns beyond the vectors' length are zeros.
    """
    known = principal_components(vectors[has_vector], dim)
    known = np.pad(known / known.std(), ((0, 0), (0, dim - known.shape[1])))
    return _spread(known, has_vector)


def _spread(known: npt.NDArray[np.float64], has_vector: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    rows = np.zeros((len(has_vector), known.shape[1]), np.float32)
    rows[has_vector] = known
    return rows


def _matrix(column: pa.ChunkedArray, source: str) -> npt.NDArray[np.float32]:
    """The lists of a column as rows."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise DataError(f"{source}: column {VECTOR!r} must hold lists of numbers, got {kind}")
    lengths = sorted(set(column.combine_chunks().value_lengths().to_pylist()))
    if len(lengths) > 1 or lengths == [0]:
        raise DataError(
            f"{source}: column {VECTOR!r} must hold lists of one length from 1 up, got {lengths[0]} to {lengths[-1]}"
        )
    values = column.combine_chunks().flatten()
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DataError(
            f"{source}: column {VECTOR!r} must hold finite numbers, got {(~np.isfinite(numbers)).sum()} others"
        )
    return numbers.reshape(len(column), -1) if lengths else numbers.reshape(0, 1)
