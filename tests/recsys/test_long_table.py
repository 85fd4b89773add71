"""Recommendations as a table with one recommended item a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from cce_minus.recsys import NO_ITEM, ConfigError
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.serving import recommendation_table

LABELS = np.array(["a", "b", "c"], dtype=object)
ITEMS = np.array([[2, 0], [1, NO_ITEM], [NO_ITEM, NO_ITEM]])
SCORES = np.array([[1.5, 0.25], [np.nan, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)


def test_one_row_an_item_best_first():
    table = recommendation_table(["x", "y", "z"], ITEMS, SCORES, Catalog(LABELS, ["A", "B", "C"]))
    assert table.to_pylist() == [
        {"user_id": "x", "rank": 1, "item_id": "c", "title": "C", "score": 1.5},
        {"user_id": "x", "rank": 2, "item_id": "a", "title": "A", "score": 0.25},
        {"user_id": "y", "rank": 1, "item_id": "b", "title": "B", "score": None},
    ]
    assert table.schema.types == [pa.string(), pa.int32(), pa.string(), pa.string(), pa.float32()]


def test_integers_stay_integers_and_titles_may_be_missing():
    table = recommendation_table(np.array([7, 8, 9]), ITEMS, SCORES, Catalog(np.array([10, 20, 30])))
    assert table["user_id"].to_pylist() == [7, 7, 8]
    assert table["item_id"].to_pylist() == [30, 10, 20]
    assert table["title"].null_count == 3
    assert table.schema.types == [pa.int64(), pa.int32(), pa.int64(), pa.string(), pa.float32()]


def test_no_user_makes_the_same_columns():
    none = np.zeros((0, 2), np.int64)
    table = recommendation_table(np.zeros(0, np.int64), none, none.astype(np.float32), Catalog(LABELS))
    assert table.num_rows == 0
    assert table.schema.types == [pa.int64(), pa.int32(), pa.string(), pa.string(), pa.float32()]


@pytest.mark.parametrize(
    ("users", "items", "scores", "message"),
    [
        (["x"], ITEMS, SCORES, r"items: expected \(rows, k\) for 1 users"),
        (["x", "y", "z"], ITEMS, SCORES[:, :1], r"scores of shape \(3, 1\), got \(3, 2\)"),
        (["x"], np.array([[3]]), np.ones((1, 1)), r"items: expected ids in \[0, 3\), got 3\.\.3"),
    ],
)
def test_what_does_not_fit_is_named(users: list[str], items: np.ndarray, scores: np.ndarray, message: str):
    with pytest.raises(ConfigError, match=message):
        recommendation_table(users, items, scores, Catalog(LABELS))
