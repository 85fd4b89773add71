"""Categories of items as multi-hot features, against tables made by hand."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError, Interactions, TrainConfig
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.item_features import MOST_VALUES, multi_hot, read_categories
from cce_minus.recsys.run.side_information import side_information

CATALOG = Catalog(np.array(["a", "b", "c", "d"], dtype=object))
HALF, THIRD = 1 / np.sqrt(2), 1 / np.sqrt(3)


def read(path: Path, *columns: str) -> np.ndarray:
    return read_categories(path, CATALOG, item_column="item_id", columns=columns)


# drama: a, b, c; war: a, c; comedy: c.
EXPECTED = np.array([[HALF, HALF, 0], [1, 0, 0], [THIRD, THIRD, THIRD], [0, 0, 0]], np.float32)
ROWS = {"c": ["war", "drama", "comedy"], "a": ["drama", "war"], "b": ["drama"], "elsewhere": ["horror"]}


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "list", "fixed", "dictionary", "rows"])
def test_every_form_of_a_file_gives_the_same_features(tmp_path: Path, form: str):
    path = tmp_path / ("items.parquet" if form not in ("csv", "tsv") else f"items.{form}")
    if form in ("csv", "tsv"):
        mark = "," if form == "csv" else "\t"
        lines = [f"genre{mark}item_id", *(f"{' | '.join(values)}{mark}{item}" for item, values in ROWS.items())]
        path.write_text("\n".join(lines) + "\n")
    elif form == "json":
        pq.write_table(
            pa.table({"item_id": list(ROWS), "genre": [json.dumps(values) for values in ROWS.values()]}), path
        )
    elif form == "rows":
        pairs = [(item, value) for item, values in ROWS.items() for value in (*values, None, "", values[0])]
        pq.write_table(pa.table({"item_id": [item for item, _ in pairs], "genre": [value for _, value in pairs]}), path)
    else:
        kind = pa.dictionary(pa.int32(), pa.string()) if form == "dictionary" else pa.string()
        kind = pa.list_(kind, 3) if form == "fixed" else pa.large_list(kind)
        values = [[*row, None, None][:3] if form == "fixed" else row for row in ROWS.values()]
        pq.write_table(pa.table({"item_id": list(ROWS), "genre": pa.array(values, kind)}), path)
    got = read(path, "genre")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, EXPECTED)


def test_columns_follow_each_other(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "items.csv"
    path.write_text("item_id,year,genre,color\na,1990,x|y,true\nb,,y,\nc,1995,[untitled,false\nd,1995,,true\n")
    with caplog.at_level(logging.WARNING):
        got = read(path, "year", "genre", "color")
    year = [[0, 1], [0, 0], [1, 0], [1, 0]]
    genre = [[HALF, 0, HALF], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    color = [[1, 0], [0, 0], [0, 1], [1, 0]]
    np.testing.assert_allclose(got, np.hstack([year, genre, color]), rtol=1e-7)
    assert not caplog.records


def test_items_without_features_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pq.write_table(pa.table({"item_id": ["b", "z"], "brand": [3, 4]}), tmp_path / "items.parquet")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read(tmp_path / "items.parquet", "brand"), [[0], [1], [0], [0]])
    assert "3 of 4 items have no features" in caplog.text


def test_only_the_most_frequent_values_are_kept(caplog: pytest.LogCaptureFixture):
    rare = {f"rare{number:05}" for number in range(MOST_VALUES + 7)}
    with caplog.at_level(logging.WARNING):
        got = multi_hot([rare, {"common"}, {"common", "rare01030"}], source="items.csv: column 'tag'")
    assert got.shape == (3, MOST_VALUES)
    # common and rare01030 come twice; then the first in order of text.
    np.testing.assert_allclose(got[1:, :3], [[1, 0, 0], [HALF, HALF, 0]], rtol=1e-6)
    np.testing.assert_allclose(np.square(got).sum(axis=1), 1, rtol=1e-5)
    assert not got[0, 0]
    assert got[0, 1:].all()
    assert f"items.csv: column 'tag': kept the {MOST_VALUES} most frequent of {MOST_VALUES + 8} values" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item_id": ["a"]}, "no column 'genre'"),
        ({"item_id": ["a", None], "genre": ["x", "y"]}, "column 'item_id' has 1 empty values"),
        ({"item_id": ["y", "z"], "genre": ["x", "y"]}, "column 'item_id' has none of the 4 items"),
        ({"item_id": ["a", "z"], "genre": [" ", "y"]}, "column 'genre' has a value for none of the 4 items"),
        (
            {"item_id": ["a"], "genre": [0.5]},
            "column 'genre' must hold text, integers, booleans or lists of these, got double",
        ),
        (
            {"item_id": ["a"], "genre": [[["x"]]]},
            "column 'genre' must hold text, integers, booleans or lists of these, got list",
        ),
    ],
)
def test_unusable_files_name_the_column(tmp_path: Path, table: dict[str, Any], message: str):
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    with pytest.raises(DataError, match=rf"items\.parquet: {message}"):
        read(tmp_path / "items.parquet", "genre")


def test_a_run_puts_categories_before_vectors(tmp_path: Path):
    pq.write_table(pa.table({"sku": [7, 9], "kind": ["x", "y"], "size": [1, 1]}), tmp_path / "items.parquet")
    pq.write_table(pa.table({"sku": [9, 7], "vector": [[1.0, 5.0], [3.0, 5.0]]}), tmp_path / "vectors.parquet")
    ids = np.zeros(2, np.int32)
    events = Interactions(ids, np.arange(2, dtype=np.int32), np.arange(2), np.array([1]), np.array([7, 9]))
    files: dict[str, Any] = {
        "item_features": str(tmp_path / "items.parquet"),
        "feature_columns": "size, kind",
        "item_column": "sku",
    }
    side = side_information(TrainConfig(**files, item_vectors=str(tmp_path / "vectors.parquet")), events)
    np.testing.assert_allclose(side.features, [[1, 1, 0, HALF, 0], [1, 0, 1, -HALF, 0]], rtol=1e-6)
    assert (side.num_features, side.initial) == (5, None)
    nothing = side_information(TrainConfig(), events)
    assert (nothing.features.shape, nothing.initial) == ((2, 0), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"feature_columns": "genre"},
            "feature_columns: expected its default None with no item_features, which does not use it",
        ),
        (
            {"item_features": "f.csv"},
            "feature_columns: expected the columns of item_features to use, or numeric_columns, got none",
        ),
        ({"item_features": "f.csv", "feature_columns": "a,,b"}, "feature_columns: expected different column names"),
        ({"item_features": "f.csv", "feature_columns": "a, a"}, "feature_columns: expected different column names"),
        (
            {"item_features": "f.csv", "feature_columns": "a,item_id"},
            "feature_columns: expected columns beside item_column",
        ),
        ({"numeric_columns": "a"}, "numeric_columns: expected its default None with no item_features"),
        ({"item_features": "f.csv", "numeric_columns": "a,"}, "numeric_columns: expected different column names"),
        (
            {"item_features": "f.csv", "numeric_columns": "item_id"},
            "numeric_columns: expected columns beside item_column, got 'item_id'",
        ),
        (
            {"item_features": "f.csv", "feature_columns": "a", "numeric_as": "quantiles"},
            "numeric_as: expected its default standardized with no numeric_columns",
        ),
        (
            {"item_features": "f.csv", "numeric_columns": "a", "numeric_bins": 9},
            "numeric_bins: expected its default 10 with numeric_as = standardized",
        ),
        (
            {"item_features": "f.csv", "numeric_columns": "a", "numeric_as": "log"},
            "numeric_as: expected one of standardized, quantiles, got log",
        ),
        *(
            (
                {"item_features": "f.csv", "numeric_columns": "a", "numeric_as": "quantiles", "numeric_bins": bins},
                f"numeric_bins: expected {expected}, got {bins}",
            )
            for bins, expected in ((1, "a number from 2 up"), (1025, "at most 1024"))
        ),
        ({"item_vectors_as": "initial"}, "item_vectors_as: expected its default features with no item_vectors"),
        ({"item_vectors_dim": 8}, "item_vectors_dim: expected its default 0 with no item_vectors"),
        (
            {"item_vectors": "v.parquet", "item_vectors_dim": -1},
            "item_vectors_dim: expected a number from 0 up, got -1",
        ),
        (
            {"item_vectors": "v.parquet", "item_vectors_as": "table"},
            "item_vectors_as: expected one of features, initial, got table",
        ),
        (
            {"item_vectors": "v.parquet", "item_vectors_as": "initial", "item_vectors_dim": 8},
            "item_vectors_dim: expected its default 0 with item_vectors_as = initial",
        ),
        (
            {"item_vectors": "v.parquet", "item_vectors_as": "initial", "init_weights": "w.safetensors"},
            "item_vectors_as: expected features with init_weights",
        ),
    ],
)
def test_options_that_do_not_go_together_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=f"^{message}"):
        TrainConfig(**options)
