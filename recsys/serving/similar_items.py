"""The nearest items of items, by the cosine of their vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..data.catalog import Catalog
from ..run.tensor_file import Stored, as_numbers
from .evaluation import require_k

_ITEMS, _VECTORS = 256, 2**16
"""That are compared with each other at once."""


def similar_items(
    vectors: Stored, items: npt.NDArray[np.integer], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The k other items whose vectors (V, D) have the largest cosine c_i . c_j / (|c_i| |c_j|) with each of ``items``
    (n,), best first, and these cosines: (n, k) int64 and float32. Equal ones go to the lower id; a vector of zeros has
    the cosine 0 with all. Raises ``ConfigError`` unless 1 <= k < V.

    The vectors are read piece by piece, and never all in the host's memory.
    """
    num_items, dim = vectors.shape
    require_k(k, num_items - 1)  # the others
    asked = np.zeros((len(items), dim), np.float32)
    for first, piece in _directions(vectors):
        inside = (items >= first) & (items < first + len(piece))
        asked[inside] = piece[items[inside] - first]
    best = np.full((len(items), k), np.iinfo(np.int64).min)
    for first, piece in _directions(vectors):
        ids = np.arange(first, first + len(piece))
        for begin in range(0, len(items), _ITEMS):
            rows = slice(begin, begin + _ITEMS)
            keys = _keys(asked[rows] @ piece.T, ids)
            keys[ids == np.asarray(items)[rows, None]] = np.iinfo(np.int64).min
            keys = np.concatenate([best[rows], keys], axis=1)
            best[rows] = np.partition(keys, -k, axis=1)[:, -k:]
    best = -np.sort(-best, axis=1)
    ids = _MOST_ITEMS - (best & _MOST_ITEMS)
    bits = (best >> 32).astype(np.int32)
    return ids, (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def similar_items_table(vectors: Stored, items: npt.NDArray[np.integer], k: int, catalog: Catalog) -> pa.Table:
    """The same as a table with k rows for each item: ``item_id``, ``rank`` (int32, from 1), ``similar_item_id``,
    ``title`` (text, null in a catalog without titles) and ``score``, the cosine."""
    near, cosines = similar_items(vectors, items, k)
    flat = near.ravel().tolist()
    titles = [None] * len(flat) if catalog.titles is None else [catalog.titles[item] for item in flat]
    columns = {
        "item_id": pa.array(catalog.labels[items.repeat(k)]),
        "rank": pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), len(items))),
        "similar_item_id": pa.array(catalog.labels[flat]),
        "title": pa.array(titles, pa.string()),
        "score": pa.array(cosines.ravel()),
    }
    return pa.table(columns)


_MOST_ITEMS = 2**32 - 1


def _keys(cosines: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Integers in the order of the cosines, of equal ones in that of falling ids: no two are the same."""
    bits = (cosines + np.float32(0)).view(np.int32)  # -0 is 0
    return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32) | (_MOST_ITEMS - ids)


def _directions(vectors: Stored) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The vectors in float32, divided by their lengths: pieces and the ids that these begin with."""
    first = 0
    for whole in vectors.pieces():
        for begin in range(0, len(whole), _VECTORS):
            piece = as_numbers(whole[begin : begin + _VECTORS], vectors.dtype)
            lengths = np.linalg.norm(piece, axis=1, keepdims=True)
            yield first, np.divide(piece, np.where(lengths > 0, lengths, 1), dtype=np.float32)
            first += len(piece)
