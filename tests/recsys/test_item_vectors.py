"""Pretrained vectors: principal components against a singular value decomposition, dense features and initial rows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.item_vectors import dense_features, initial_rows, read_vectors
from cce_minus.recsys.data.pca import principal_components

CATALOG = Catalog(np.array([10, 20, 30, 40]))


@pytest.fixture
def data() -> np.ndarray:
    """(50, 6) float32 of different variances along mixed axes, far from the origin."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(50, 6)) * [5, 3, 2, 1, 0.5, 0.1] @ rng.normal(size=(6, 6)) + 20).astype(np.float32)


def test_principal_components_are_those_of_the_singular_values(data: np.ndarray):
    centred = data.astype(np.float64) - data.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    for k in (1, 4, 6):
        got = principal_components(data, k)
        assert got.shape == (50, k)
        expected = (left * values)[:, :k]
        # Signs are free in a decomposition; here they follow from the data.
        expected *= np.sign((expected * got).sum(axis=0))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)
    assert principal_components(data, 9).shape == (50, 6)


def test_signs_follow_from_the_data(data: np.ndarray):
    got = principal_components(data, 3)
    np.testing.assert_allclose(principal_components(data[::-1], 3)[::-1], got, rtol=0, atol=1e-8)
    axes, *_ = np.linalg.lstsq(data - data.mean(axis=0, dtype=np.float64), got, rcond=None)
    assert (axes.max(axis=0) == np.abs(axes).max(axis=0)).all()


def test_axes_without_variance_give_zeros(data: np.ndarray):
    flat = data[:, :2] @ np.random.default_rng(1).normal(size=(2, 6))
    got = principal_components(flat, 5)
    assert got[:, :2].std(axis=0).min() > 1
    assert not got[:, 2:].any()


def test_dense_features_are_standardised(data: np.ndarray):
    data[:, 3] = 7
    has_vector = np.ones(50, np.bool_)
    has_vector[[4, 9]] = False
    got = dense_features(data, has_vector)
    known = got[has_vector]
    np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(known.std(axis=0) * np.sqrt(6), [1, 1, 1, 0, 1, 1], rtol=1e-5)
    assert got.dtype == np.float32
    assert not got[~has_vector].any()
    reduced = dense_features(data, has_vector, dim=2)
    components = principal_components(data[has_vector], 2)
    np.testing.assert_allclose(reduced[has_vector], components / components.std(axis=0) / np.sqrt(2), atol=1e-6)
    with pytest.raises(ConfigError, match="item_vectors_dim: expected at most the 6 columns of the vectors, got 7"):
        dense_features(data, has_vector, dim=7)


def test_initial_rows_keep_the_components_proportions(data: np.ndarray):
    has_vector = np.arange(50) != 11
    components = principal_components(data[has_vector], 4)
    narrow = initial_rows(data, has_vector, dim=4)
    np.testing.assert_allclose(narrow[has_vector], components / components.std(), rtol=1e-5, atol=1e-6)
    assert not narrow[11].any()
    wide = initial_rows(data, has_vector, dim=10)
    assert wide.shape == (50, 10)
    np.testing.assert_allclose(wide[has_vector, :6].std(), 1, rtol=1e-5)
    assert not wide[:, 6:].any()


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16())])
def test_vectors_find_their_items(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: pa.DataType):
    halves = np.array([[1, 2], [3, 4], [5, 6], [9, 9]], np.float16)
    vectors = pa.array([*halves, None], kind)
    # 10 occurs twice, 20's vector is null, 40 is not there, 50 is no item.
    pq.write_table(pa.table({"item_id": ["30", "10", "50", "10", "20"], "vector": vectors}), tmp_path / "v.parquet")
    with caplog.at_level(logging.WARNING):
        got, has_vector = read_vectors(tmp_path / "v.parquet", CATALOG, item_column="item_id")
    np.testing.assert_array_equal(got, [[3, 4], [0, 0], [1, 2], [0, 0]])
    assert has_vector.tolist() == [True, False, True, False]
    assert "2 of 4 items have no vector; theirs are zeros" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item_id": [10]}, "no column 'vector'"),
        ({"item_id": [10], "vector": [0.5]}, "column 'vector' must hold lists of numbers, got double"),
        ({"item_id": [10], "vector": [["x"]]}, "column 'vector' must hold lists of numbers, got list"),
        (
            {"item_id": [10, 20], "vector": [[0.5], [0.5, 1.0]]},
            "column 'vector' must hold lists of one length from 1 up, got 1 to 2",
        ),
        (
            {"item_id": [10, 20], "vector": [[0.5], [float("nan")]]},
            "column 'vector' must hold finite numbers, got 1 others",
        ),
        ({"item_id": [10, 20], "vector": [[0.5], [None]]}, "column 'vector' must hold finite numbers, got 1 others"),
        ({"item_id": [11, 21], "vector": [[0.5], [1.5]]}, "column 'vector' has a vector for none of the 4 items"),
        (
            {"item_id": [10], "vector": pa.array([None], pa.list_(pa.float32()))},
            "column 'vector' has a vector for none of the 4",
        ),
        (
            {"item_id": [10, 20], "vector": [[0.5], [0.5]]},
            "column 'vector' must hold vectors that differ from item to item",
        ),
    ],
)
def test_unusable_files_name_the_column(tmp_path: Path, table: dict[str, Any], message: str):
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    with pytest.raises(DataError, match=rf"v\.parquet: {message}"):
        read_vectors(tmp_path / "v.parquet", CATALOG, item_column="item_id")


def test_other_formats_are_refused(tmp_path: Path):
    (tmp_path / "v.csv").touch()
    with pytest.raises(DataError, match=r"v\.csv: expected a Parquet file of item vectors, got 'v.csv'"):
        read_vectors(tmp_path / "v.csv", CATALOG, item_column="item_id")
