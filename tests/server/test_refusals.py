"""What a server refuses, and how it says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.server.walks import Walk, asked, items_of

JSON = {"content-type": "application/json"}
LIMITS = {"max_rows": 3, "max_ids": 4, "max_k": 15, "max_items": 20, "max_body": 2000}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/recommend", b"", 400, "body: expected JSON"),
        ("/recommend", b'{"users": [1', 400, "body: expected JSON"),
        ("/recommend", b'{"users": [1], "users": [2]}', 400, "an object has a key twice"),
        ("/recommend", b'{"users": [NaN]}', 400, "NaN is no number of JSON"),
        ("/recommend", b"[" * 1900, 400, "body: expected JSON"),
        ("/recommend", b'{"users": [\xff]}', 400, "body: expected JSON"),
        ("/recommend", b"[]", 422, "body: expected a JSON object, got []"),
        ("/recommend", b"{}", 422, "users: expected users or sequences, got none"),
        ("/recommend", b'{"users": [1], "sequences": [[1]]}', 422, "users: expected users or sequences, got both"),
        ("/recommend", b'{"users": [1], "top": 3}', 422, "body: expected some of users, sequences"),
        ("/recommend", b'{"users": "1"}', 422, "users: expected a list of ids"),
        ("/recommend", b'{"users": [1.5]}', 422, "users: expected a list of ids"),
        ("/recommend", b'{"users": [true]}', 422, "users: expected a list of ids"),
        ("/recommend", b'{"users": ["\\ud800"]}', 422, "users: expected a list of ids"),
        ("/recommend", b'{"users": []}', 422, "users: expected from 1 to 3 of them, got 0"),
        ("/recommend", b'{"users": [1, 2, 3, 4]}', 422, "users: expected from 1 to 3 of them, got 4"),
        ("/recommend", b'{"users": [99]}', 422, "users: expected users of walk (5 of them), got '99'"),
        ("/recommend", b'{"users": [1], "k": 0}', 422, "k: expected an integer from 1 to 15, got 0"),
        ("/recommend", b'{"users": [1], "k": 16}', 422, "k: expected an integer from 1 to 15, got 16"),
        (
            "/recommend",
            b'{"users": [1, 2], "k": 11}',
            422,
            "at most 20 items in an answer, got 2 rows of 11",
        ),
        ("/recommend", b'{"users": [1], "k": true}', 422, "k: expected an integer from 1 to 15, got True"),
        ("/recommend", b'{"users": [1], "k": null}', 422, "k: expected an integer from 1 to 15, got None"),
        ("/recommend", b'{"users": [1], "filter_seen": 1}', 422, "filter_seen: expected a value of type bool"),
        ("/recommend", b'{"users": [1], "unknown_users": "no"}', 422, "unknown_users: expected one of error"),
        ("/recommend", b'{"users": [1], "skip_unknown": true}', 422, "skip_unknown: only for sequences"),
        ("/recommend", b'{"users": [1], "candidates": []}', 422, "candidates: expected from 1 to 4 of them, got 0"),
        ("/recommend", b'{"users": [1], "candidates": [99]}', 422, "candidates: expected items of the catalog"),
        ("/recommend", b'{"sequences": {}}', 422, "sequences: expected a list of lists"),
        ("/recommend", b'{"sequences": [1]}', 422, "sequences: expected a list of item ids for row 0, got 1"),
        ("/recommend", b'{"sequences": [[1], []]}', 422, "sequences: expected at least one known item"),
        ("/recommend", b'{"sequences": [[1], [99]]}', 422, "sequences: expected items of the catalog (20 of them)"),
        ("/recommend", b'{"sequences": [[1, 2, 3, 4, 5]]}', 422, "sequences: expected at most 4 ids in row 0, got 5"),
        ("/recommend", b'{"sequences": [[1]], "unknown_users": "skip"}', 422, "unknown_users: only for users"),
        ("/recommend", b'{"users": [1]' + b" " * 2000 + b"}", 413, "body: expected at most 2000 bytes, got 2014"),
        (
            "/similar",
            b'{"items": [1, 2, 3], "k": 7}',
            422,
            "at most 20 items in an answer, got 3 rows of 7",
        ),
        ("/similar", b"{}", 422, "items: expected a list of ids"),
        ("/similar", b'{"items": [99]}', 422, "items: expected items of the catalog (20 of them), got 99"),
        ("/similar", b'{"items": [1], "users": [1]}', 422, "body: expected some of items, k, got 'users'"),
    ],
)
def test_bodies(path: str, body: bytes, status: int, text: str):
    answer = asked(lambda client: client.post(path, content=body, headers=JSON), **LIMITS)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert text in answer.json()["error"]


def test_all_bodies_together_are_bounded_until_they_are_checked():
    model = Walk()
    model.goes_on.clear()
    body = b'{"sequences": [[1]], "k": 1}' + b" " * 1000

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        comes, ends = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield body[:600]
            comes.set()
            await ends.wait()
            yield body[600:]

        def post(content: Any) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post("/recommend", content=content, headers=JSON))

        waits = post(body)  # for the model, without its body
        assert await asyncio.to_thread(model.entered.wait, 10)
        first = post(slow())
        await asyncio.wait_for(comes.wait(), 10)
        refused = await post(body)
        ends.set()
        model.goes_on.set()
        return [refused, await waits, await first, await post(body)]

    refused, *answers = asked(work, model, max_body=1500, max_bodies=1500)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"] == "max_bodies: expected at most 1500 bytes of all bodies at once, got more"
    assert [items_of(answer) for answer in answers] == [[[2]]] * 3


@pytest.mark.parametrize("text", ["\u3000", "a\u00a0b", "\U0001f468\u200d\U0001f469", "\u0e01"])
def test_texts_of_all_languages_are_searched_for(text: str):
    assert asked(lambda client: client.get("/items", params={"q": text})).json() == {"items": []}


def test_what_was_sent_is_not_sent_back_as_a_whole():
    answer = asked(lambda client: client.post("/recommend", json={"users": ["x" * 100_000]}))
    assert answer.status_code == 422
    assert len(answer.json()["error"]) == 1000


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "text"),
    [
        ("GET", "/recommend", {}, 405, "method: expected POST, got GET"),
        ("POST", "/health", {}, 405, "method: expected GET, got POST"),
        ("GET", "/recommend/", {}, 404, "path: expected one of /, /health"),
        ("POST", "/reload", {}, 404, "path: expected one of /, /health"),
        ("POST", "/recommend", {"content": b"{}"}, 415, "content-type: expected application/json, got ''"),
        ("POST", "/recommend", {"data": {"users": 1}}, 415, "content-type: expected application/json, got"),
        ("GET", "/items?limit=0", {}, 422, "limit: expected an integer from 1 to 15, got '0'"),
        ("GET", "/items?limit=x", {}, 422, "limit: expected an integer from 1 to 15, got 'x'"),
        ("GET", "/items?text=x", {}, 422, "items: expected q and limit, got 'text'"),
        ("GET", "/items?q=%00", {}, 422, "q: expected at most 200 characters, none that controls"),
        ("GET", "/items?q=%C2%9F", {}, 422, "q: expected at most 200 characters, none that controls"),
    ],
)
def test_requests(method: str, path: str, options: dict[str, Any], status: int, text: str):
    answer = asked(lambda client: client.request(method, path, **options), **LIMITS)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert text in answer.json()["error"]


def test_a_fault_is_told_without_a_traceback(caplog: pytest.LogCaptureFixture):
    class Faulty(Walk):
        def recommend(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("the secret of the machine")

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [
            await client.post("/recommend", json={"users": [1]}),
            await client.post("/similar", json={"items": [1], "k": 1}),
        ]

    failed, after = asked(work, Faulty())
    assert failed.status_code == 500
    assert failed.json() == {"error": "server: expected an answer, got a fault of the server, which its log tells of"}
    assert "the secret of the machine" in caplog.text
    assert len(items_of(after)) == 1
