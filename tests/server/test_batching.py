"""Requests that wait share calls of the model, and none waits or fails for another."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.metrics import Metrics

from tests.server.walks import ITEMS, Walk, asked, client_of, items_of, keeper_of, walk_run


def ask(client: httpx.AsyncClient, item: int, **options: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/recommend", json={"sequences": [[item]], "k": 3, **options}))


def after(item: int, k: int = 3) -> list[list[int]]:
    return [[(item + place) % ITEMS for place in range(1, k + 1)]]


async def entered(model: Walk) -> None:
    assert await asyncio.to_thread(model.entered.wait, 10)


async def waiting(client: httpx.AsyncClient, count: int) -> None:
    """Until so many requests wait for the model."""
    for _ in range(1000):
        if f"cce_minus_waiting_requests {count}\n" in (await client.get("/metrics")).text:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"no {count} requests wait")


def test_concurrent_requests_share_calls():
    model = Walk()

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(ask(client, item % ITEMS, k=1 + item % 4) for item in range(40)))

    answers = asked(work, model, batch_ms=50, batch_rows=16)
    for item, answer in enumerate(answers):
        assert items_of(answer) == after(item % ITEMS, 1 + item % 4)
    assert sum(model.calls) == 40
    assert len(model.calls) < 20
    assert max(model.calls) <= 16


def test_requests_of_other_options_have_calls_of_their_own():
    model = Walk()
    options: list[dict[str, Any]] = [{}, {"filter_seen": False}, {"candidates": [1, 2]}, {"candidates": [2, 1, 1]}, {}]

    model.goes_on.clear()

    async def work(client: httpx.AsyncClient) -> None:
        first = ask(client, 1)
        await entered(model)
        tasks = [ask(client, 5, **each) for each in options]
        await waiting(client, len(options))
        model.goes_on.set()
        await asyncio.gather(first, *tasks)

    asked(work, model, batch_ms=0)
    assert sorted(model.calls[1:]) == [1, 2, 2]


def test_large_requests_are_not_split():
    model = Walk()
    sequences = [[item] for item in range(10)]
    answer = asked(lambda client: client.post("/recommend", json={"sequences": sequences, "k": 1}), model, batch_rows=4)
    assert items_of(answer) == [[item + 1] for item in range(10)]
    assert model.calls == [10]


def test_one_that_fails_leaves_the_others():
    class Picky(Walk):
        def recommend(self, histories: Any, k: int, **options: Any) -> Any:
            if 7 in histories.values:
                raise RuntimeError("seven")
            return super().recommend(histories, k, **options)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(ask(client, item) for item in (6, 7, 8)))

    first, failed, last = asked(work, Picky(), batch_ms=50)
    assert (items_of(first), failed.status_code, items_of(last)) == (after(6), 500, after(8))


def test_too_many_are_told_to_come_back():
    model = Walk()
    model.goes_on.clear()

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = [ask(client, 1)]
        await entered(model)
        tasks += [ask(client, item) for item in (2, 3)]
        await waiting(client, 2)
        refused = await ask(client, 4)
        health = await client.get("/health")  # the event loop is free
        model.goes_on.set()
        return [refused, health, *await asyncio.gather(*tasks)]

    refused, health, *answers = asked(work, model, max_waiting=3)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"] == "max_waiting: expected at most 3 waiting requests, got one more"
    assert health.status_code == 200
    assert [items_of(answer) for answer in answers] == [after(1), after(2), after(3)]


def test_one_that_waits_too_long_is_told_and_not_computed():
    model = Walk()
    model.goes_on.clear()

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = ask(client, 1)
        await entered(model)
        late = [await first, await ask(client, 2)]
        model.goes_on.set()
        good = await ask(client, 3)
        for _ in range(100):  # one is too late, too, where the machine is busy
            if good.status_code == 200:
                break
            good = await ask(client, 3)
        return [*late, good]

    first, late, good = asked(work, model, timeout=0.3)
    for answer in (first, late):
        assert answer.status_code == 504
        assert answer.json()["error"] == "timeout: expected an answer within 0.3 s, got none"
    assert items_of(good) == after(3)
    assert model.asked[:2] == [[1], [3]]  # never the second, which nobody waited for


def test_requests_in_flight_finish_on_the_run_that_they_began_with():
    old, new = Walk(1), Walk(2)
    old.goes_on.clear()

    async def work() -> list[httpx.Response]:
        metrics = Metrics()
        keeper = keeper_of(walk_run(old), metrics)
        async with client_of(keeper, Limits(), metrics) as client:
            first = ask(client, 1)
            await entered(old)
            second = ask(client, 5)
            await waiting(client, 1)
            keeper.loaded = walk_run(new)
            after_swap = ask(client, 5)
            await waiting(client, 2)
            old.goes_on.set()
            return [*await asyncio.gather(first, second, after_swap)]

    first, second, after_swap = asyncio.run(work())
    assert (items_of(first), items_of(second)) == (after(1), after(5))
    assert items_of(after_swap) == [[7, 9, 11]]


def test_popular_items_come_without_a_score():
    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        requests = ({"users": [9, 1], "unknown_users": "popular"}, {"users": [9], "unknown_users": "skip"})
        return [await client.post("/recommend", json={"k": 2, **each}) for each in requests]

    popular, skipped = asked(work)
    assert popular.json()["users"] == [9, 1]
    assert [[item["score"] for item in row] for row in popular.json()["rows"]] == [[None, None], [99.0, 98.0]]
    assert skipped.json() == {"rows": [], "users": []}


def test_nearest_items_share_calls():
    model = Walk()
    model.goes_on.clear()

    async def work(client: httpx.AsyncClient) -> tuple[list[httpx.Response], str]:
        first = ask(client, 1)
        await entered(model)
        items = range(1, ITEMS - 1)
        tasks = [asyncio.create_task(client.post("/similar", json={"items": [item], "k": 2})) for item in items]
        await waiting(client, len(tasks))
        model.goes_on.set()
        await first
        return await asyncio.gather(*tasks), (await client.get("/metrics")).text

    answers, metrics = asked(work, model, batch_ms=0)
    for item, answer in enumerate(answers, start=1):
        assert sorted(items_of(answer)[0]) == [item - 1, item + 1]
        assert answer.json()["rows"][0][0]["score"] == pytest.approx(np.cos(2 * np.pi / ITEMS), rel=1e-5)
    assert "cce_minus_batch_requests_count 2\n" in metrics  # one call for the first, and one for all of these


def test_a_full_batch_does_not_wait_for_its_time():
    model = Walk()

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = [ask(client, 1)]
        await waiting(client, 1)
        await asyncio.sleep(0.1)  # it is waited for others now
        tasks += [ask(client, item) for item in (2, 3)]
        return await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert [items_of(answer) for answer in asked(work, model, batch_ms=20_000, batch_rows=3, timeout=30)] == [
        after(1), after(2), after(3),
    ]  # fmt: skip
    assert model.calls == [3]
