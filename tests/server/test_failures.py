"""What fails within a server: it is told as its own fault, and takes nothing else with it."""

from __future__ import annotations

import asyncio
import importlib
import threading
from typing import Any

import httpx
import numpy as np
import pytest
from cce_minus.recsys.errors import ConfigError, LowMemoryError
from cce_minus.recsys.server import batching
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.metrics import Metrics
from cce_minus.recsys.server.worker import Worker

from tests.server.walks import ITEMS, Walk, asked, client_of, items_of, keeper_of, walk_run


class Faulty(Walk):
    """Raises ``error`` where a history has item 7."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def recommend(self, histories: Any, k: int, **options: Any) -> Any:
        if 7 in histories.values:
            self.calls.append(len(histories))
            raise self.error
        return super().recommend(histories, k, **options)


def ask(client: httpx.AsyncClient, item: int, **options: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/recommend", json={"sequences": [[item]], "k": 1, **options}))


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (LowMemoryError("memory: expected enough, got 1 MiB"), 503, "1"),
        (MemoryError("1 MiB"), 503, "1"),
        (ConfigError("k: expected a secret"), 500, None),
        (TimeoutError("a secret"), 500, None),
        (StopIteration("a secret"), 500, None),
        (SystemExit("a secret"), 500, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_the_model_is_the_servers(
    error: BaseException, status: int, retry: str | None, caplog: pytest.LogCaptureFixture
):
    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [*await asyncio.gather(ask(client, 7), ask(client, 5)), await ask(client, 6)]

    failed, beside, after = asked(work, Faulty(error), batch_ms=50)
    assert (failed.status_code, failed.headers.get("retry-after")) == (status, retry)
    assert "secret" not in failed.text
    assert "Traceback" in caplog.text
    assert str(error) in caplog.text
    if isinstance(error, Exception):
        assert items_of(beside) == [[6]]
    assert items_of(after) == [[7]]


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("text", ["", "1 MiB\nmore"])
def test_too_little_memory_is_told_apart(framework: str, text: str):
    devices = importlib.import_module(f"cce_minus.{framework}_impl.devices")
    with pytest.raises(LowMemoryError, match=r"got: (MemoryError|1 MiB)$"), devices.enough_memory():
        raise MemoryError(text)


def test_the_row_that_fails_is_found_by_halves():
    model = Faulty(RuntimeError("seven"))
    model.goes_on.clear()

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = ask(client, 1)
        assert await asyncio.to_thread(model.entered.wait, 10)
        tasks = [ask(client, 7 if number == 11 else 1) for number in range(32)]
        while "cce_minus_waiting_requests 32\n" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
        model.goes_on.set()
        return [await first, *await asyncio.gather(*tasks)]

    first, *answers = asked(work, model)
    assert items_of(first) == [[2]]
    assert [answer.status_code for answer in answers] == [500 if number == 11 else 200 for number in range(32)]
    assert sum(model.calls[1:]) == 32 + 2 * (16 + 8 + 4 + 2 + 1)  # two halves at each of five steps


def test_an_error_of_the_batcher_itself_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def gather(self: object) -> None:
        del self
        raise RuntimeError("no batch")

    monkeypatch.setattr(batching.Batcher, "_gather", gather)
    ends: list[BaseException] = []

    async def run() -> httpx.Response:
        metrics = Metrics()
        keeper = keeper_of(walk_run(Walk()), metrics)
        async with client_of(keeper, Limits(timeout=20), metrics, failed=ends.append) as client:
            return await asyncio.wait_for(ask(client, 1), 10)  # fails at once, not when its time is over

    assert asyncio.run(run()).status_code == 500
    assert [str(error) for error in ends] == ["no batch"]
    assert "server: expected a model that answers, got none; it stops" in caplog.text


def test_large_answers_are_written_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    from cce_minus.recsys.server.questions import Question

    names: list[str] = []
    written = Question.answer

    def answer(self: Question, found: Any) -> bytes:
        names.append(threading.current_thread().name)
        return written(self, found)

    monkeypatch.setattr(Question, "answer", answer)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        large = await client.post("/similar", json={"items": [1] * 20, "k": 19})
        return [large, await client.post("/similar", json={"items": [1], "k": 19})]

    for answer_ in asked(work):
        assert len(items_of(answer_)[0]) == ITEMS - 1
    assert names == ["answers", "MainThread"]


def test_scores_that_are_no_numbers_are_null():
    class Odd(Walk):
        def recommend(self, histories: Any, k: int, **options: Any) -> Any:
            items, scores = super().recommend(histories, k, **options)
            scores = scores.copy()
            scores[:, 1:3] = np.nan, np.inf
            scores[:, 3] = 0.1
            return items, scores

    answer = asked(lambda client: client.post("/recommend", json={"sequences": [[1]], "k": 4}), Odd())
    assert [item["score"] for item in answer.json()["rows"][0]] == [99.0, None, None, 0.1]


def test_a_worker_leaves_undone_what_nobody_waits_for():
    done: list[int] = []

    async def run() -> None:
        worker, goes_on = Worker("test"), threading.Event()
        first = asyncio.create_task(worker.do(goes_on.wait))
        second = asyncio.create_task(worker.do(lambda: done.append(2)))
        await asyncio.sleep(0)
        second.cancel()
        assert not await asyncio.to_thread(worker.close, 0.05)
        goes_on.set()
        assert await first
        assert await asyncio.to_thread(worker.close, 10)

    asyncio.run(run())
    assert done == []
