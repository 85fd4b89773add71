"""Recommendations as a table with one recommended item a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..data.catalog import Catalog
from ..errors import ConfigError
from ..protocol.list_metrics import NO_ITEM

Users = Sequence[Any] | npt.NDArray[Any]


def recommendation_table(
    users: Users, items: npt.NDArray[np.integer], scores: npt.NDArray[np.floating], catalog: Catalog
) -> pa.Table:
    """One row for each recommended item, users in their order and each user's best item first.

    Columns: ``user_id`` (int64 or text), ``rank`` (int32, 1 is best), ``item_id`` (the catalog's label, int64 or text),
    ``title`` (text, null in a catalog without titles), ``score`` (float32, null where it is NaN: the model did not
    score the item). ``users`` (rows,) are all integers or all text, ``items`` (rows, k) ids of the catalog and
    ``scores`` (rows, k) what a `ServedModel` recommends; a place that holds `NO_ITEM` makes no row. Raises
    ``ConfigError`` for arrays of unlike shapes and ids that are no items.
    """
    if items.ndim != 2 or scores.shape != items.shape or len(users) != len(items):
        raise ConfigError(
            f"items: expected (rows, k) for {len(users)} users and scores of shape {scores.shape}, got {items.shape}"
        )
    row, place = np.nonzero(items != NO_ITEM)
    chosen = items[row, place]
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(catalog)):
        raise ConfigError(f"items: expected ids in [0, {len(catalog)}), got {chosen.min()}..{chosen.max()}")
    titles = catalog.titles
    score = scores[row, place].astype(np.float32)
    columns = {
        "user_id": id_array(users).take(pa.array(row)),
        "rank": pa.array(place + 1, pa.int32()),
        "item_id": id_array(catalog.labels[chosen]),
        "title": pa.nulls(len(chosen), pa.string())
        if titles is None
        else pa.array([titles[item] for item in chosen.tolist()], pa.string()),
        "score": pa.array(score, pa.float32(), mask=np.isnan(score)),
    }
    return pa.table(columns)


def written(score: float | None) -> float | None:
    """The number with the fewest digits that is this float32; None of what JSON does not write."""
    return None if score is None or not np.isfinite(score) else float(str(np.float32(score)))


def written_all(scores: npt.NDArray[np.float32]) -> list[float | None]:
    """Each as by `written`."""
    return [
        float(str(score)) if is_finite else None
        for score, is_finite in zip(scores, np.isfinite(scores).tolist(), strict=True)
    ]


def id_array(labels: Users) -> pa.Array:
    """Original ids as int64 or text; of none, what an array of NumPy's holds, else text."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        return pa.array(labels, pa.int64())
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    is_integer = bool(values) and all(isinstance(value, int | np.integer) for value in values)
    return pa.array(values, pa.int64() if is_integer else pa.string())
