"""Recommendations part by part, of a model that is none, and the files that they are written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import NO_ITEM, ConfigError, PopularityBaseline, Ragged
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.serving import Recommended, Requests, recommend_parts, recommendations, write_recommendations

CATALOG = Catalog(np.arange(10, 20))


class LastItem:
    """Recommends the item after the last of each history and nothing else; keeps what it was asked."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.candidates: list[Any] = []

    def recommend(self, histories: Ragged, k: int, *, filter_seen: bool, candidates: Any = None) -> Any:
        self.rows.append(len(histories))
        self.candidates.append(candidates)
        items = np.full((len(histories), k), NO_ITEM, np.int64)
        items[:, 0] = [history[-1] + 1 for history in histories]
        return items, np.where(items == NO_ITEM, -np.inf, 0.5).astype(np.float32)

    def evaluate(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    def item_vectors(self) -> Any:
        raise AssertionError


def requests_of(rows: list[list[int]]) -> Requests:
    histories = Ragged.from_rows(rows)
    return Requests([f"u{row}" for row in range(len(rows))], histories, histories.lengths == 0)


def test_parts_are_bounded_and_in_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recommendations, "PART", 3)
    model, rows = LastItem(), [[5, 1], [2], [], [3, 0], [], [4], [7]]
    parts = list(recommend_parts(model, CATALOG, requests_of(rows), 2, popular=np.array([9, 8, 7])))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert model.rows == [2, 2, 1]
    found = [row for part in parts for row in part.rows()]
    assert [row.user for row in found] == [f"u{row}" for row in range(7)]
    assert [row.items for row in found] == [[12], [13], [19, 18], [11], [19, 18], [15], [18]]
    assert [row.scores for row in found] == [[0.5], [0.5], [None, None], [0.5], [None, None], [0.5], [0.5]]
    assert found[0].last_seen == ["15", "11"]
    assert parts[0].table()["score"].to_pylist() == [0.5, 0.5, None, None]


def test_candidates_are_the_models_business_and_popular_items_may_be_few():
    model = LastItem()
    chosen = np.array([1, 2])
    (part,) = recommend_parts(model, CATALOG, requests_of([[0], []]), 3, candidates=chosen, popular=np.array([2]))
    assert model.candidates == [chosen]
    assert part.items.tolist() == [[1, NO_ITEM, NO_ITEM], [2, NO_ITEM, NO_ITEM]]
    assert part.table()["user_id"].to_pylist() == ["u0", "u1"]


def test_nobody_makes_an_empty_part():
    (part,) = recommend_parts(LastItem(), CATALOG, requests_of([]), 3)
    assert (len(part), part.table().num_rows) == (0, 0)


def test_unknown_users_without_popular_items_are_named():
    with pytest.raises(ConfigError, match="popular: expected items for 1 users without a history, got none"):
        next(recommend_parts(LastItem(), CATALOG, requests_of([[]]), 3))


def test_popular_candidates():
    baseline = PopularityBaseline(Ragged.from_rows([[3, 1, 3, 5, 5, 5]]), 7)
    candidates = np.array([0, 1, 0, 1, 1, 0, 1], bool)
    assert [baseline.top(k).tolist() for k in (2, 5)] == [[5, 3], [5, 3, 1, 0, 2]]
    assert [baseline.top(k, candidates).tolist() for k in (1, 3, 7)] == [[3], [3, 1, 4], [3, 1, 4, 6]]


@pytest.mark.parametrize("name", ["top.json", "top.jsonl", "top.csv", "top.parquet"])
def test_a_file_stays_as_it_was_until_all_is_written(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_text("before")

    def fail_after_one() -> Iterator[Recommended]:
        yield from recommend_parts(LastItem(), CATALOG, requests_of([[1], [2]]), 1)
        assert path.read_text() == "before"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_recommendations(fail_after_one(), path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_text() == "before"
    assert write_recommendations(recommend_parts(LastItem(), CATALOG, requests_of([[1], [2]]), 1), path) == 2
    assert b"before" not in path.read_bytes()


def test_json_is_written_as_a_whole_list_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recommendations, "PART", 1)
    requests = Requests(["a\nb", "ü"], Ragged.from_rows([[1], [2]]), np.zeros(2, bool))
    write_recommendations(recommend_parts(LastItem(), CATALOG, requests, 1), tmp_path / "top.json")
    assert (
        (tmp_path / "top.json").read_text(encoding="utf-8")
        == """[
 {
  "user_id": "a\\nb",
  "items": [
   12
  ],
  "names": [
   "12"
  ],
  "scores": [
   0.5
  ]
 },
 {
  "user_id": "ü",
  "items": [
   13
  ],
  "names": [
   "13"
  ],
  "scores": [
   0.5
  ]
 }
]
"""
    )
