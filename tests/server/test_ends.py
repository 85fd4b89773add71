"""A server's process ends when it is told to, whatever the model does, and when nothing more can be answered."""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from cce_minus.recsys.server import open_files
from cce_minus.recsys.server.open_files import enough_files

from tests.server.walks import Served, served

HANGS = """
import threading
from cce_minus.recsys.server import questions
questions.recommend_part = lambda *_, **__: threading.Event().wait()
"""

FAILS = """
from cce_minus.recsys.server.batching import Batcher
async def gather(self):
    raise RuntimeError("no batch")
Batcher._gather = gather
"""


def ask(server: Served) -> int:
    return httpx.post(f"{server.url}/recommend", json={"sequences": [["f01"]]}, timeout=20).status_code


def test_a_call_that_hangs_does_not_hold_the_process(films: Path):
    with served(films, "--timeout", "1", before=HANGS) as server:
        assert ask(server) == 504
        server.signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        server.wait_until(lambda: any("it is left behind" in line for line in server.log))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(films: Path, number: signal.Signals):
    def asks() -> None:
        with contextlib.suppress(httpx.HTTPError):
            ask(server)

    with served(films, "--timeout", "100", before=HANGS) as server:
        client = threading.Thread(target=asks)
        client.start()
        time.sleep(0.5)
        server.signal(number)
        with pytest.raises(Exception, match="timed out"):
            server.process.wait(1)
        server.signal(number)
        assert server.process.wait(5) == -number
        client.join(20)


def test_without_a_model_that_answers_it_ends(films: Path):
    with served(films, before=FAILS) as server:
        assert ask(server) == 500
        assert server.process.wait(20) == 1
        server.wait_until(lambda: any("no batch" in line for line in server.log))


def test_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    limits, seen = [(100, 5000)], list[tuple[int, int]]()
    monkeypatch.setattr(open_files.resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(open_files.resource, "setrlimit", lambda _, given: limits.append(given))
    for connections in (2048, 6000):
        with caplog.at_level(logging.WARNING), enough_files(connections):
            seen.append(limits[-1])
        assert limits[-1] == (100, 5000)
    assert seen == [(2304, 5000), (5000, 5000)]
    (line,) = caplog.messages
    assert line.startswith("max_connections: expected at least 6256 files that may be open at once")


def test_the_limit_of_files_is_put_back():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with enough_files(1):
        pass
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
