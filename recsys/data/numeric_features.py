"""Numbers of items, such as prices, as features: standardized, or the bins that quantiles make of them."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from .ids import is_text, without_empty
from .item_rows import ItemRows

logger = logging.getLogger(__name__)


def numeric_features(
    rows: ItemRows, columns: Sequence[str], *, bins: int | None = None
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Returns the features (V, P) float32 of the numeric ``columns``, one after the other: `standardized`, or with
    ``bins`` as `quantile_bins`; and their P names. Raises what `numbers` raises."""
    parts, names = [], []
    for column in columns:
        values = numbers(rows, column)
        if bins is None:
            parts.append(standardized(values))
            names += [column, f"{column}, missing"][: parts[-1].shape[1]]
            continue
        parts.append(quantile_bins(values, bins))
        if (got := parts[-1].shape[1]) < bins:
            logger.info("%s: column %r: %d bins in place of %d, as edges are equal", rows.source, column, got, bins)
        names += [f"{column}, bin {place + 1} of {got}" for place in range(got)]
    return np.concatenate(parts, axis=1), names


def numbers(rows: ItemRows, column: str) -> npt.NDArray[np.float64]:
    """Returns each item's number (V,) float64 of a column, NaN where it has none.

    A cell is an integer, float or decimal, or text that writes one (``12.5``, ``-3e2``), as every cell of CSV and TSV.
    A null, NaN and an empty text are no number. An item may be in several rows with the same number. Raises `DataError`
    naming file and column for a column of another type, for text that writes no number and infinite numbers with their
    row, for different numbers of one item, and where the items have no number, or all the same.
    """
    name = f"{rows.source}: column {column!r}"
    cells = _as_floats(rows.table[column], name)
    counts = (rows.items >= 0) & ~np.isnan(cells)
    items, cells = rows.items[counts], cells[counts]
    known, first = np.unique(items, return_index=True)
    if len(known) == 0:
        raise DataError(f"{name} has a value for none of the {len(rows.catalog)} items of the data")
    values = np.full(len(rows.catalog), np.nan)
    values[known] = cells[first]
    other = np.flatnonzero(cells != values[items])
    if len(other):
        row, got = np.flatnonzero(counts)[other[0]], cells[other[0]]
        label = rows.catalog.labels[rows.items[row]]
        raise DataError(
            f"{name} must hold one number an item, got {values[rows.items[row]]} and, in row {row + 1}, {got} of item "
            f"{str(label)!r}"
        )
    if (values[known] == values[known[0]]).all():
        raise DataError(
            f"{name} must hold numbers that differ from item to item, got {values[known[0]]} for all {len(known)} "
            "items that have one"
        )
    return values


def standardized(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Returns ``(x - mean) / std`` as one column (V, 1) float32 of ``values`` (V,), mean and std those of the items
    that have a value, which must differ.

    Where values are missing (NaN), theirs are zeros, and a second column is 1 for these items and 0 for others.
    """
    missing = np.isnan(values)
    # Over a power of two, which rounds nothing, so that no square overflows or vanishes.
    x = np.ldexp(values, -np.frexp(np.nanmax(np.abs(values)))[1])
    x = np.where(missing, 0, (x - np.nanmean(x)) / np.nanstd(x))
    return np.stack([x, missing] if missing.any() else [x], axis=1).astype(np.float32)


def quantile_bins(values: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float32]:
    """Returns (V, P) float32, 2 <= P <= ``bins``: 1 at the bin of each item's value (V,), zeros where it is NaN.

    An edge lies between two neighbouring values. Edge k = 1..bins-1 is where the share of the items below is nearest to
    ``k / bins``, the lower of two as near; equal edges are one. Hence items with the same value are in the same bin,
    and no bin is empty. The values must differ.
    """
    known = np.flatnonzero(~np.isnan(values))
    _, rank, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    below = np.cumsum(counts)[:-1]  # items below each place where an edge may be
    bins = min(bins, len(known))  # with more, every such place is an edge already
    wanted = np.arange(1, bins) * len(known)  # times bins, as everything here, to compare integers
    above = np.searchsorted(below * bins, wanted).clip(max=len(below) - 1)
    lower = (above - 1).clip(min=0)
    nearest = np.where(wanted - below[lower] * bins <= below[above] * bins - wanted, lower, above)
    edges = np.unique(nearest)
    features = np.zeros((len(values), len(edges) + 1), np.float32)
    features[known, np.searchsorted(edges, rank)] = 1
    return features


def _as_floats(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float64]:
    """The finite numbers of a column (n,), NaN for no number."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (is_number or is_text(kind) or pa.types.is_null(kind)):
        raise DataError(f"{name} must hold numbers or text that writes them, got {kind}")
    cells = _parsed(column.cast(pa.large_string()), name) if is_text(kind) else column.cast(kind)
    # An integer beyond 2**53 becomes the nearest float.
    floats = cells.cast(pa.float64(), safe=False).to_numpy()
    infinite = np.flatnonzero(np.isinf(floats))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(f"{name} must hold finite numbers, got {column[row].as_py()!r} in row {row + 1}")
    return floats


def _parsed(text: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The numbers that text writes."""
    text = without_empty(pc.utf8_trim_whitespace(text))  # pyright: ignore[reportAttributeAccessIssue]

    def is_wrong(end: int) -> bool:
        try:
            text[:end].cast(pa.float64())
        except pa.ArrowInvalid:
            return True
        return False

    if not is_wrong(len(text)):
        return text.cast(pa.float64())
    row = bisect_left(range(1, len(text) + 1), True, key=is_wrong)
    raise DataError(f"{name} must hold numbers such as 12.5, got {text[row].as_py()!r} in row {row + 1}")
