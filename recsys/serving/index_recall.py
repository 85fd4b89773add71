"""What an index of item vectors finds of the exact search's best items, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..run.tensor_file import Stored
from .item_index import float_pieces, require_faiss

QUERIES = 500
"""That an index is measured with at most: a recall of 0.95 is then known to half a per cent."""

_TIMED_SECONDS = 1.0


@dataclass(frozen=True)
class IndexRecall:
    """``recall``: of the ``k`` items of largest inner product with a query, the share that the index finds among its
    first ``k``, a mean over ``queries``; ``milliseconds``: of a query searched alone, by ``threads`` threads."""

    k: int
    recall: float
    queries: int
    milliseconds: float
    threads: int


def measure_index(index: Any, vectors: Stored, queries: npt.NDArray[np.float32], k: int = 10) -> IndexRecall:
    """Measures ``index`` of ``vectors`` (V, D), which are read in pieces, with ``queries`` (n, D), n > 0; ``k`` is at
    most V."""
    k = min(k, vectors.shape[0])
    exact, found = exact_best(vectors, queries, k), index.search(queries, k)[1]
    recall = (found[:, :, None] == exact[:, None, :]).any(axis=1).mean()
    start, searched = time.perf_counter(), 0
    while searched < len(queries) and time.perf_counter() - start < _TIMED_SECONDS:
        index.search(queries[searched : searched + 1], k)
        searched += 1
    milliseconds = 1e3 * (time.perf_counter() - start) / searched
    return IndexRecall(k, float(recall), len(queries), milliseconds, require_faiss().omp_get_max_threads())


def exact_best(vectors: Stored, queries: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """The ids (n, k) of the vectors with the largest inner products with ``queries`` (n, D), best first."""
    faiss = require_faiss()
    scores, ids = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for first, piece in float_pieces(vectors):
        piece_scores, places = faiss.knn(queries, piece, min(k, len(piece)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, ids = np.concatenate([scores, piece_scores], axis=1), np.concatenate([ids, places + first], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return ids
