"""FAISS indexes of item vectors by inner product: exact, a graph of neighbours, or lists of compressed vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..run.tensor_file import Stored, as_numbers

FLAT, HNSW, IVF_PQ = INDEXES = ("flat", "hnsw", "ivf-pq")


@dataclass(frozen=True)
class IndexPlan:
    """An index of vectors (V, D): its ``kind``, FAISS's name of it, and the ``parameters`` of its building and search.

    ``memory`` is about how many bytes it takes, ``training_rows`` how many vectors beside it while it is trained.
    """

    kind: str
    factory: str
    memory: int
    parameters: dict[str, int] = field(default_factory=dict)
    training_rows: int = 0


def plan_index(kind: str, num_items: int, dim: int) -> IndexPlan:
    """How to index ``num_items`` V vectors of ``dim`` D numbers.

    ``flat``: every vector in float32, an exact search. ``hnsw`` (Malkov and Yashunin, 2018, arXiv 1603.09320): these
    and a graph with up to 64 neighbours an item; a search keeps the best 64 items on its way, 128 beyond a million.
    ``ivf-pq`` (Jegou et al., 2011, doi 10.1109/TPAMI.2010.57): lists around 4 sqrt(V) centroids, at most one for 39
    items, of which a search reads 64; a vector is its difference from the centroid, in the largest number of bytes from
    D/8 to D/4 that divides D.

    Raises ``ConfigError`` for another kind, and for what FAISS cannot train: ``ivf-pq`` of fewer items than a byte has
    values, or of a width without such a number of bytes.
    """
    if kind not in INDEXES:
        raise ConfigError(f"index: expected one of {', '.join(INDEXES)} and none, got {kind}")
    exact = 4 * num_items * dim
    if kind == FLAT:
        return IndexPlan(kind, "Flat", exact)
    if kind == HNSW:
        search = 64 if num_items <= 10**6 else 128
        parameters = {"M": _NEIGHBOURS, "efConstruction": 200, "efSearch": search}
        return IndexPlan(kind, f"HNSW{_NEIGHBOURS}", exact + 4 * num_items * (2 * _NEIGHBOURS + 4), parameters)
    size = next((size for size in range(dim // 4, 0, -1) if dim % size == 0 and 8 * size >= dim), None)
    if num_items < _CODES:
        raise ConfigError(f"index: expected {_CODES} items or more to train ivf-pq on, got {num_items}; flat takes any")
    if size is None:
        raise ConfigError(
            f"index: expected for ivf-pq a dim that a number of bytes from dim / 8 to dim / 4 divides, got {dim}"
        )
    lists = max(min(round(4 * math.sqrt(num_items)), num_items // _LEAST_IN_LIST), 1)
    parameters = {"nlist": lists, "nprobe": min(lists, 64), "bytes_an_item": size}
    rows = min(num_items, max(64 * lists, 256 * _CODES))
    # np: without the training for searches by Hamming distance (polysemous codes), which takes most of the time
    return IndexPlan(kind, f"IVF{lists},PQ{size}np", num_items * (size + 8) + 4 * lists * dim, parameters, rows)


_NEIGHBOURS = 32  # in the graph's upper levels, twice as many in the lowest
_CODES = 256  # of a byte of a compressed vector: so many centroids are trained for each
_LEAST_IN_LIST = 39  # FAISS's own least number of points a centroid


def require_faiss() -> Any:
    """The module; raises ``ConfigError`` where it is not installed."""
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "index: expected the package faiss-cpu, which cce-minus[export] installs, got none; --index none does "
            "without"
        ) from error
    return faiss


def build_index(plan: IndexPlan, vectors: Stored) -> Any:
    """The index of ``vectors`` (V, D), which are read in pieces; item j is number j in it."""
    faiss = require_faiss()
    index = faiss.index_factory(vectors.shape[1], plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.kind == HNSW:
        index.hnsw.efConstruction = plan.parameters["efConstruction"]
        index.hnsw.efSearch = plan.parameters["efSearch"]
    if plan.kind == IVF_PQ:
        for clustering in (index.cp, index.pq.cp):  # few points are no news: the recall is measured
            clustering.min_points_per_centroid = 1
        index.train(sample_rows(vectors, plan.training_rows))
        index.nprobe = plan.parameters["nprobe"]
    for _, piece in float_pieces(vectors):
        index.add(piece)
    return index


def sample_rows(vectors: Stored, count: int) -> npt.NDArray[np.float32]:
    """``count`` of the vectors, at random, in float32 and in their order."""
    chosen = np.sort(np.random.default_rng(0).choice(vectors.shape[0], count, replace=False))
    sample = np.empty((count, vectors.shape[1]), np.float32)
    for first, piece in float_pieces(vectors):
        begin, end = np.searchsorted(chosen, (first, first + len(piece)))
        sample[begin:end] = piece[chosen[begin:end] - first]
    return sample


def float_pieces(vectors: Stored) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The vectors' pieces in float32 and the ids that these begin with."""
    first = 0
    for piece in vectors.pieces():
        yield first, as_numbers(piece, vectors.dtype)
        first += len(piece)
