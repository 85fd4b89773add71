"""A server's answers are those of ``Recommender``, of either framework."""

from __future__ import annotations

import asyncio
import importlib
import pickle
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from cce_minus.recsys.errors import DataError
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.loaded_run import LoadedRun, load_run
from cce_minus.recsys.server.metrics import Metrics
from cce_minus.recsys.serving.served_run import ServedRun

from tests.server.walks import client_of, keeper_of

FRAMEWORKS = ("torch", "jax")


@pytest.fixture(scope="module")
def loaded_by(films: Path) -> Callable[[str], LoadedRun]:
    @cache
    def make(framework: str) -> LoadedRun:
        load = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served
        return load_run(films, load, framework=framework, device="cpu", batch_rows=2)

    return make


def answers(loaded: LoadedRun | None, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        metrics = Metrics()
        async with client_of(keeper_of(loaded, metrics), Limits(), metrics) as client:
            return await work(client)

    return asyncio.run(run())


REQUESTS: list[dict[str, Any]] = [
    {"users": [3, 41, "7"], "k": 5},
    {"users": [3], "filter_seen": False},
    {"users": [3, 4], "k": 3, "candidates": ["f01", "f09", "f01", "f33", "f12"]},
    {"users": [3, "nobody", 4], "k": 4, "unknown_users": "popular"},
    {"users": [3, "nobody", 4], "k": 4, "unknown_users": "skip"},
    {"sequences": [["f01", "f02"], ["f30", "f31", "f32"]], "k": 7},
    {"sequences": [["f01", "gone", "f02"]], "k": 40, "skip_unknown": True},
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_recommendations_are_the_recommenders(films: Path, loaded_by: Callable[[str], LoadedRun], framework: str):
    recommender = importlib.import_module(f"cce_minus.{framework}_impl").Recommender.load(films, device="cpu")

    async def work(client: httpx.AsyncClient) -> list[Any]:
        return [await client.post("/recommend", json=request) for request in REQUESTS]

    for request, answer in zip(REQUESTS, answers(loaded_by(framework), work), strict=True):
        assert answer.status_code == 200, answer.text
        found = answer.json()
        names = found.get("users", range(len(found["rows"])))
        rows = [{"user_id": user, **item} for user, row in zip(names, found["rows"], strict=True) for item in row]
        expected = recommender.recommend(**request).to_pylist()
        assert [{**row, "score": None} for row in rows] == [{**row, "score": None} for row in expected]
        assert [row["score"] for row in rows] == [
            None if row["score"] is None else pytest.approx(row["score"], rel=1e-5) for row in expected
        ]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_similar_items_are_the_recommenders(films: Path, loaded_by: Callable[[str], LoadedRun], framework: str):
    recommender = importlib.import_module(f"cce_minus.{framework}_impl").Recommender.load(films, device="cpu")
    request = {"items": ["f03", "f20"], "k": 5}
    answer = answers(loaded_by(framework), lambda client: client.post("/similar", json=request))
    rows = [
        (label, item["rank"], item["item_id"], item["title"], pytest.approx(item["score"], rel=1e-5))
        for label, row in zip(request["items"], answer.json()["rows"], strict=True)
        for item in row
    ]
    assert rows == [tuple(row.values()) for row in recommender.similar_items(**request).to_pylist()]


def test_health_page_and_metrics(loaded_by: Callable[[str], LoadedRun]):
    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        await client.post("/recommend", json={"users": [1]})
        await client.get("/nowhere")
        return [await client.get(path) for path in ("/health", "/", "/metrics")]

    health, page, metrics = answers(loaded_by("torch"), work)
    told = health.json()
    assert {name: told[name] for name in ("status", "run", "framework", "model", "items", "data", "users")} == {
        "status": "ok", "run": "monday", "framework": "torch", "model": "sasrec", "items": 40,
        "data": "events.parquet", "users": 60,
    }  # fmt: skip
    assert told["epochs"] == 2
    assert 0 <= told["test"]["ndcg@10"] <= 1
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    lines = metrics.text.splitlines()
    assert 'cce_minus_requests_total{path="/recommend",status="200"} 1' in lines
    assert 'cce_minus_requests_total{path="other",status="404"} 1' in lines
    assert "cce_minus_batch_rows_sum 1.000000" in lines
    assert "cce_minus_request_seconds_count 4" in lines
    assert "cce_minus_waiting_requests 0" in lines


def test_items_are_found_by_title_and_id(loaded_by: Callable[[str], LoadedRun]):
    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        queries = ({"q": "fILm <B>07"}, {"q": "f07"}, {"q": "(19", "limit": 3}, {"q": ".*"}, {})
        return [await client.get("/items", params=query) for query in queries]

    by_title, by_id, some, pattern, first = (answer.json()["items"] for answer in answers(loaded_by("torch"), work))
    assert by_title == by_id == [{"item_id": "f07", "title": "Film <b>07</b> (1967)"}]
    assert [item["item_id"] for item in some] == ["f00", "f01", "f02"]
    assert pattern == []
    assert len(first) == 20


def test_nothing_is_answered_before_a_run_is_loaded():
    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        posts = [await client.post(path, json={}) for path in ("/recommend", "/similar")]
        return [*posts, await client.get("/health"), await client.get("/items")]

    for answer in answers(None, work):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"].startswith("run: expected one that is loaded")


def test_a_run_whose_training_part_cannot_be_read_serves_users(films: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: Any) -> Any:
        raise DataError("train: expected events")

    monkeypatch.setattr(ServedRun, "train_part", refused)
    load = importlib.import_module("cce_minus.torch_impl.serve").load_served
    loaded = load_run(films, load, framework="torch", device="cpu")

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        popular = {"users": ["nobody"], "unknown_users": "popular"}
        return [await client.post("/recommend", json=request) for request in ({"users": [3]}, popular)]

    known, popular = answers(loaded, work)
    assert known.status_code == 200
    assert popular.status_code == 422
    assert popular.json()["error"].startswith("unknown_users: expected a run whose training events can be read")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_loading_never_unpickles(films: Path, framework: str, monkeypatch: pytest.MonkeyPatch):
    load = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a file of a run was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refused)
    loaded = load_run(films, load, framework=framework, device="cpu")
    assert len(loaded.catalog) == 40


def test_a_run_whose_events_have_gone_serves_sequences(
    films: Path, loaded_by: Callable[[str], LoadedRun], caplog: pytest.LogCaptureFixture
):
    load = importlib.import_module("cce_minus.torch_impl.serve").load_served
    with caplog.at_level("WARNING"):
        loaded = load_run(films, load, framework="torch", device="cpu", data="/nowhere/events.parquet")
    assert "users are not served by their ids" in caplog.text

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        requests = ({"users": [3]}, {"sequences": [["f01"]]})
        return [await client.post("/recommend", json=request) for request in requests]

    users, sequences = answers(loaded, work)
    assert users.status_code == 422
    assert "nowhere" not in users.text  # no path of the machine
    assert sequences.status_code == 200
