"""Answers that nobody takes end with their connections, those that are taken slowly do not; no more connections than
allowed are held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.serve import server_config

from tests.server.walks import ITEMS, Walk, app_of, walk_run

BODY = json.dumps({"sequences": [[1]] * 200, "k": ITEMS, "filter_seen": False}).encode()


class Server:
    """In a thread, with small buffers of the system and up to three connections."""

    def __init__(self, keep_alive: int) -> None:
        limits = Limits(keep_alive=keep_alive, max_connections=3)
        self.uvicorn = uvicorn.Server(server_config(app_of(walk_run(Walk()), limits), limits))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=lambda: asyncio.run(self.uvicorn.serve([self.socket])))

    def connections(self) -> int:
        return len(self.uvicorn.server_state.connections)

    def until(self, count: int) -> None:
        """Waits until so many connections are held."""
        for _ in range(200):
            if self.connections() == count:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.connections()} connections")

    def connect(self) -> socket.socket:
        """One that takes little before it reads."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection


@contextlib.contextmanager
def running(keep_alive: int) -> Iterator[Server]:
    server = Server(keep_alive)
    with server.socket:
        server.thread.start()
        yield server
        server.uvicorn.should_exit = True
        server.thread.join(20)
        assert not server.thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(keep_alive=1) as server:
        yield server


def request(*headers: str, version: str = "1.1") -> bytes:
    lines = [
        f"POST /recommend HTTP/{version}", "host: localhost", "content-type: application/json",
        f"content-length: {len(BODY)}", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + BODY


@pytest.mark.parametrize(
    "sent",
    [
        (request(),),
        (request("connection: close"),),
        (request(version="1.0"),),
        (request() + request(),),
        (request(), b"G"),
    ],
    ids=["kept", "close", "1.0", "pipelined", "a byte more"],
)
def test_an_answer_that_nobody_takes(server: Server, sent: tuple[bytes, ...]):
    server.until(0)
    with server.connect() as connection:
        for part in sent:
            connection.sendall(part)
            time.sleep(0.3)
        assert server.connections() == 1
        server.until(0)


def test_an_answer_that_is_taken_slowly_comes_whole(server: Server):
    server.until(0)
    found, began = b"", time.monotonic()
    with server.connect() as connection:
        connection.sendall(request("connection: close"))
        while part := connection.recv(16384):
            found += part
            time.sleep(0.2)
    assert time.monotonic() - began > 3
    assert len(json.loads(found.partition(b"\r\n\r\n")[2])["rows"]) == 200


def test_connections_beyond_the_bound_are_refused_and_the_others_answered():
    with running(keep_alive=60) as server:
        held = [server.connect() for _ in range(3)]
        server.until(3)
        with server.connect() as refused, contextlib.suppress(ConnectionResetError):
            assert refused.recv(1) == b""
        assert server.connections() == 3
        held[0].sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert held[0].recv(15) == b"HTTP/1.1 200 OK"
        for connection in held:
            connection.close()
