"""A model whose recommendations are known, and what asks a server in this process or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.interactions import Interactions
from cce_minus.recsys.data.ragged import Ragged
from cce_minus.recsys.protocol.popularity import PopularityBaseline
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.recsys.server.app import make_app
from cce_minus.recsys.server.front import Front
from cce_minus.recsys.server.hosts import Hosts
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.loaded_run import LoadedRun
from cce_minus.recsys.server.metrics import Metrics
from cce_minus.recsys.server.reload import RunKeeper

ITEMS, HERE = 20, Hosts("127.0.0.1")


class Walk:
    """Recommends the ``step``-th items after the last one of a history, whose scores fall from 100 by one each."""

    def __init__(self, step: int = 1) -> None:
        self.step, self.calls, self.asked = step, list[int](), list[list[int]]()
        self.entered, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()

    def recommend(
        self, histories: Ragged, k: int, *, filter_seen: bool, candidates: Any = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        del filter_seen, candidates
        self.calls.append(len(histories))
        self.asked.append([int(history[-1]) for history in histories])
        self.entered.set()
        assert self.goes_on.wait(30)
        last = np.array([history[-1] for history in histories], np.int64).reshape(-1, 1)
        places = np.arange(1, k + 1)
        scores = np.broadcast_to(100 - places, (len(last), k)).astype(np.float32)
        return (last + self.step * places) % ITEMS, scores

    def item_vectors(self) -> Stored:
        turns = 2 * np.pi * np.arange(ITEMS) / ITEMS
        vectors = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
        return Stored("float32", vectors.shape, lambda: iter([vectors]))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        raise AssertionError("no server evaluates")


def walk_run(model: Any, *, name: str = "walk") -> LoadedRun:
    """A run of ``model``: items 0..19, titled by their numbers, and user u of 0..4 who had item u."""
    titles = [f"Title {item}" for item in range(ITEMS)]
    catalog = Catalog(np.arange(ITEMS), titles)
    users = np.arange(5, dtype=np.int32)
    events = Interactions(users, users, users.astype(np.int64), np.arange(5), np.arange(ITEMS), titles, "walk")
    popularity = PopularityBaseline(Ragged(users, np.arange(6)), ITEMS)
    about = {"run": name, "framework": "torch", "model": "walk", "items": ITEMS}
    return LoadedRun(name, model, catalog, about, events, popularity)


def keeper_of(loaded: LoadedRun | None, metrics: Metrics) -> RunKeeper:
    """One that is not started, and whose run a test sets."""

    def load(path: Path) -> LoadedRun:
        raise AssertionError(path)

    keeper = RunKeeper(Path("walk"), load, seconds=0, metrics=metrics)
    keeper.loaded = loaded
    return keeper


def app_of(loaded: LoadedRun, limits: Limits) -> Front:
    """Of a server on this machine."""
    metrics = Metrics()
    return make_app(keeper_of(loaded, metrics), limits, metrics, HERE, unexpected)


def unexpected(error: BaseException) -> None:
    raise AssertionError(error)


@contextlib.asynccontextmanager
async def client_of(
    keeper: RunKeeper, limits: Limits, metrics: Metrics, *, hosts: Hosts = HERE,
    failed: Callable[[BaseException], object] = unexpected,
) -> AsyncIterator[httpx.AsyncClient]:  # fmt: skip
    """Of an application in this event loop."""
    app = make_app(keeper, limits, metrics, hosts, failed)
    messages = asyncio.Queue[Any]()
    started, ended = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        {"lifespan.startup.complete": started, "lifespan.shutdown.complete": ended}[message["type"]].set()

    task = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, messages.get, send))
    await messages.put({"type": "lifespan.startup"})
    await asyncio.wait_for(started.wait(), 10)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            yield client
    finally:
        await messages.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(ended.wait(), 10)
        await task


def asked(work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]], model: Any = None, **limits: Any) -> Any:
    """What ``work`` makes of a client of a server of ``model``."""

    async def run() -> Any:
        metrics = Metrics()
        loaded = walk_run(Walk() if model is None else model)
        async with client_of(keeper_of(loaded, metrics), Limits(**limits), metrics) as client:
            return await work(client)

    return asyncio.run(run())


def items_of(answer: httpx.Response) -> list[list[Any]]:
    """The ids of an answer's rows."""
    assert answer.status_code == 200, answer.text
    return [[item["item_id"] for item in row] for row in answer.json()["rows"]]


class Served:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: list[str]) -> None:
        self.process, self.url, self.log = process, url, log

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        until = threading.Event()
        for _ in range(int(seconds / 0.05)):
            if condition():
                return
            until.wait(0.05)
        raise AssertionError("\n".join(self.log))

    def health(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/health")
        return answer.json() if answer.status_code == 200 else {}


@contextlib.contextmanager
def served(run: Path, *options: str, framework: str = "torch", before: str = "") -> Iterator[Served]:
    """The command ``serve`` in a process that has executed ``before``, once it has loaded the run."""
    code = f"{before}\nfrom cce_minus.{framework}_impl.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(run), "--port", "0", "--device", "cpu", *options]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    ) as process:
        log: list[str] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
        reader.start()
        server = Served(process, "", log)
        try:
            server.wait_until(lambda: any("http://" in line for line in list(log)) or process.poll() is not None)
            found = re.search(r"http://\S+", "".join(log))
            assert found, "".join(log)
            server.url = found[0]
            server.wait_until(lambda: server.health() != {})
            yield server
        finally:
            process.kill()
            process.wait()
            reader.join(10)
