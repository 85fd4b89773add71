"""A server takes up another run while it answers, or keeps the one that it has."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cce_minus.recsys.errors import ConfigError
from cce_minus.recsys.server.loaded_run import LoadedRun
from cce_minus.recsys.server.metrics import Metrics
from cce_minus.recsys.server.reload import RunKeeper
from cce_minus.torch_impl import Recommender

from tests.server.walks import Served, Walk, served, walk_run


def turn(link: Path, run: Path) -> None:
    """Lets the link point to the run, in one step."""
    new = link.with_name("new")
    new.symlink_to(run)
    new.replace(link)


def loads(path: Path) -> LoadedRun:
    """The folder's name as a run, unless it holds nothing."""
    if not (path / "config.json").exists():
        raise ConfigError(f"run: expected the folder of a run, got {path}")
    return walk_run(Walk(), name=(path / "config.json").read_text())


@pytest.fixture
def link(tmp_path: Path) -> Path:
    for name in ("first", "second", "broken"):
        (tmp_path / name).mkdir()
    for name in ("first", "second"):
        (tmp_path / name / "config.json").write_text(name)
    turn(tmp_path / "current", tmp_path / "first")
    return tmp_path / "current"


def until(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing happened")


def name_of(keeper: RunKeeper) -> str:
    return "" if keeper.loaded is None else keeper.loaded.name


def test_a_link_that_is_turned_and_a_run_that_is_broken(link: Path, caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    keeper = RunKeeper(link, loads, seconds=0.02, metrics=metrics)
    keeper.start(failed=lambda: None)
    try:
        until(lambda: name_of(keeper) == "first")
        turn(link, link.parent / "broken")
        until(lambda: 'outcome="refused"' in metrics.text(0, True))
        assert name_of(keeper) == "first"
        assert "broken cannot be served, the run before it goes on: run: expected the folder" in caplog.text
        threading.Event().wait(0.2)
        assert 'cce_minus_reloads_total{outcome="refused"} 1' in metrics.text(0, True)  # and not again and again
        turn(link, link.parent / "second")
        until(lambda: name_of(keeper) == "second")
        (link.parent / "second" / "config.json").write_text("third")
        until(lambda: name_of(keeper) == "third")
    finally:
        keeper.stop()


def test_without_looks_a_signal_alone_loads(link: Path):
    metrics = Metrics()
    keeper = RunKeeper(link, loads, seconds=0, metrics=metrics)
    keeper.start(failed=lambda: None)
    try:
        until(lambda: name_of(keeper) == "first")
        turn(link, link.parent / "second")
        threading.Event().wait(0.1)
        assert name_of(keeper) == "first"
        keeper.wake()
        until(lambda: name_of(keeper) == "second")
    finally:
        keeper.stop()


def test_a_run_that_changes_while_it_is_read_is_not_taken(link: Path):
    config = link.parent / "first" / "config.json"

    def slow(path: Path) -> LoadedRun:
        loaded = loads(path)
        if loaded.name == "half":
            config.write_text("whole")
        return loaded

    metrics = Metrics()
    keeper = RunKeeper(link, slow, seconds=0.02, metrics=metrics)
    keeper.start(failed=lambda: None)
    try:
        until(lambda: name_of(keeper) == "first")
        config.write_text("half")
        until(lambda: name_of(keeper) != "first")
        assert name_of(keeper) == "whole"
        assert 'outcome="refused"} 1' in metrics.text(0, True)
    finally:
        keeper.stop()


@pytest.mark.parametrize("seconds", [0.02, 1e10], ids=["a loop", "a wait that cannot be"])
def test_nothing_ends_the_looks(link: Path, seconds: float, caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    keeper = RunKeeper(link, loads, seconds=seconds, metrics=metrics)
    keeper.start(failed=lambda: None)
    try:
        until(lambda: name_of(keeper) == "first")
        turn(link, link)
        keeper.wake()
        until(lambda: 'outcome="refused"' in metrics.text(0, True))
        assert "cannot be served, the run before it goes on" in caplog.text
        assert name_of(keeper) == "first"
        if seconds < 1:
            turn(link, link.parent / "second")
            until(lambda: name_of(keeper) == "second")
        thread = next(each for each in threading.enumerate() if each.name == "reload")
        assert thread.is_alive()
    finally:
        keeper.stop()


def test_a_first_run_that_cannot_be_loaded(link: Path):
    turn(link, link.parent / "broken")
    failed = threading.Event()
    keeper = RunKeeper(link, loads, seconds=0, metrics=Metrics())
    keeper.start(failed=failed.set)
    assert failed.wait(10)
    assert isinstance(keeper.failure, ConfigError)
    keeper.stop()


class Clients:
    """Ask for one history again and again; ``wrong`` are answers that no run of ``right`` gives."""

    def __init__(self, server: Served, right: set[tuple[str, ...]]) -> None:
        self.got: list[tuple[str, ...]] = []
        self.wrong: list[str] = []
        self._server, self._right, self._left = server, right, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._left.is_set():
                try:
                    answer = client.post(f"{self._server.url}/recommend", json={"sequences": [HISTORY], "k": 5})
                    found = tuple(item["item_id"] for item in answer.json()["rows"][0])
                except (httpx.HTTPError, KeyError) as error:
                    self.wrong.append(repr(error))
                    return
                self.got.append(found)
                if found not in self._right:
                    self.wrong.append(str(found))


HISTORY = ["f03", "f04"]


def best(run: Path) -> tuple[str, ...]:
    found = Recommender.load(run, device="cpu").recommend(sequences=[HISTORY], k=5)
    return tuple(found["item_id"].to_pylist())


def test_a_server_reloads_under_load(films: Path, other_films: Path, tmp_path: Path):
    link = tmp_path / "current"
    broken = tmp_path / "broken"
    shutil.copytree(other_films, broken)
    (broken / "best.safetensors").write_bytes(b"damaged")
    turn(link, films)
    first, second = best(films), best(other_films)
    assert first != second
    with served(link, "--watch", "0.1") as server, Clients(server, {first, second}) as clients:
        assert server.health()["run"] == films.name
        server.wait_until(lambda: first in clients.got)
        turn(link, other_films)
        server.wait_until(lambda: server.health()["run"] == other_films.name)
        count = len(clients.got)
        server.wait_until(lambda: second in clients.got[count:])
        turn(link, broken)
        server.wait_until(lambda: any("broken cannot be served" in line for line in server.log))
        assert server.health()["run"] == other_films.name
        turn(link, films)
        server.wait_until(lambda: server.health()["run"] == films.name)
        loaded = server.health()["loaded"]
        server.signal(signal.SIGHUP)
        server.wait_until(lambda: server.health()["loaded"] != loaded)
        count = len(clients.got)
        server.wait_until(lambda: len(clients.got) > count + 8)
        assert set(clients.got[count + 4 :]) == {first}
        assert clients.wrong == []
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'cce_minus_reloads_total{outcome="loaded"} 3' in metrics
        assert 'cce_minus_reloads_total{outcome="refused"} 1' in metrics


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered_at_the_end(films: Path, number: signal.Signals):
    # a batch waits three seconds for others: the signal comes meanwhile
    with served(films, "--batch-ms", "3000", "--batch-rows", "64") as server:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{server.url}/recommend", json={"sequences": [HISTORY], "k": 5}, timeout=20))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        server.wait_until(lambda: "cce_minus_waiting_requests 3" in httpx.get(f"{server.url}/metrics").text)
        server.signal(number)
        for thread in threads:
            thread.join(20)
        assert [answer.status_code for answer in answers] == [200] * 3
        assert server.process.wait(20) == 0
        assert not any("Traceback" in line for line in server.log)
        server.wait_until(lambda: any("stopped" in line for line in server.log))
        assert os.path.basename(films) in "".join(server.log)
