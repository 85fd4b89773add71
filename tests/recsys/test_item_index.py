"""Indexes of item vectors and how much of the exact search they find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.recsys.serving.index_recall import exact_best, measure_index
from cce_minus.recsys.serving.item_index import INDEXES, build_index, plan_index, sample_rows

pytest.importorskip("faiss")
V, D = 1000, 16


def in_pieces(vectors: npt.NDArray, *, dtype: str = "float32", rows: int = 300) -> Stored:
    return Stored(dtype, vectors.shape, lambda: (vectors[first : first + rows] for first in range(0, V, rows)))


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    """Around a hundred centres, of different lengths, and numbers that bfloat16 has."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((100, D)).repeat(V // 100, axis=0) + 0.3 * rng.standard_normal((V, D))
    points *= rng.uniform(0.5, 2, (V, 1))
    return (points.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.fixture(scope="module")
def queries() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((50, D)).astype(np.float32)


def test_the_exact_search_is_the_definition(vectors: npt.NDArray, queries: npt.NDArray):
    scores = queries.astype(np.float64) @ vectors.T
    expected = np.argsort(-scores, axis=1)
    for rows in (300, 7):  # pieces of fewer rows than k among them
        np.testing.assert_array_equal(exact_best(in_pieces(vectors, rows=rows), queries, 10), expected[:, :10])
    everything = exact_best(in_pieces(vectors), queries, V)
    np.testing.assert_array_equal(np.sort(everything, axis=1), np.broadcast_to(np.arange(V), (len(queries), V)))


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("hnsw", 0.95), ("ivf-pq", 0.3)])
def test_indexes_find_most_of_it(vectors: npt.NDArray, queries: npt.NDArray, kind: str, least: float):
    index = build_index(plan_index(kind, V, D), in_pieces(vectors))
    assert index.ntotal == V
    found = index.search(queries, 10)[1]
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    expected = np.mean([len({*ours} & {*theirs}) / 10 for ours, theirs in zip(found, best, strict=True)])
    measured = measure_index(index, in_pieces(vectors), queries)
    assert measured.recall == pytest.approx(expected)
    assert measured.recall >= least
    assert (measured.k, measured.queries) == (10, 50)
    # a planted error: of other vectors by the same ids hardly more is found than by chance
    assert measure_index(index, in_pieces(vectors[::-1]), queries).recall < 0.1


def test_an_index_has_the_parameters_of_its_plan(vectors: npt.NDArray):
    index = build_index(plan := plan_index("hnsw", V, D), in_pieces(vectors))
    graph = index.hnsw  # which goes with the index
    got = {"M": graph.nb_neighbors(1), "efConstruction": graph.efConstruction, "efSearch": graph.efSearch}
    assert got == plan.parameters
    lists = build_index(plan := plan_index("ivf-pq", V, D), in_pieces(vectors))
    assert {"nlist": lists.nlist, "nprobe": lists.nprobe, "bytes_an_item": lists.code_size} == plan.parameters


@pytest.mark.parametrize("kind", INDEXES)
def test_bfloat16_vectors_are_read_as_what_they_are(vectors: npt.NDArray, queries: npt.NDArray, kind: str):
    words = in_pieces((vectors.view(np.uint32) >> 16).astype(np.uint16), dtype="bfloat16")
    plan = plan_index(kind, V, D)
    np.testing.assert_array_equal(
        sample_rows(words, 100), vectors[np.sort(np.random.default_rng(0).choice(V, 100, replace=False))]
    )
    assert measure_index(build_index(plan, words), in_pieces(vectors), queries).recall > 0.3


def test_parameters_follow_from_the_catalog():
    assert plan_index("ivf-pq", 10**6, 64).parameters == {"nlist": 4000, "nprobe": 64, "bytes_an_item": 16}
    assert plan_index("ivf-pq", 10**6, 64).training_rows == 256_000
    assert plan_index("ivf-pq", 300, 20).parameters == {"nlist": 7, "nprobe": 7, "bytes_an_item": 5}
    assert plan_index("ivf-pq", 300, 50).parameters["bytes_an_item"] == 10  # 12 and 11 do not divide
    assert plan_index("hnsw", 10**6, 64).parameters["efSearch"] == 64
    assert plan_index("hnsw", 10**6 + 1, 64).parameters["efSearch"] == 128
    assert plan_index("flat", 10**6, 64).memory == 256 * 10**6


@pytest.mark.parametrize(
    ("kind", "num_items", "dim", "message"),
    [
        ("ivf-pq", 255, 16, "index: expected 256 items or more to train ivf-pq on, got 255"),
        ("ivf-pq", 256, 13, "from dim / 8 to dim / 4 divides, got 13"),
        ("ivf-pq", 256, 3, "from dim / 8 to dim / 4 divides, got 3"),
        ("annoy", 256, 16, "index: expected one of flat, hnsw, ivf-pq and none, got annoy"),
    ],
)
def test_what_faiss_cannot_train_is_refused(kind: str, num_items: int, dim: int, message: str):
    with pytest.raises(ConfigError, match=message):
        plan_index(kind, num_items, dim)


def test_the_fewest_items_are_trained_on():
    vectors = np.random.default_rng(0).standard_normal((256, 4)).astype(np.float32)
    index = build_index(plan_index("ivf-pq", 256, 4), Stored.of(vectors))
    assert measure_index(index, Stored.of(vectors), vectors[:5]).recall > 0.5
