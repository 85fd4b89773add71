"""Clients that are slow, rude or gone: each gets its error, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from cce_minus.recsys.server.connections import PatientProtocol
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.serve import server_config

from tests.server.walks import Walk, app_of, items_of, walk_run

BODY = b'{"sequences": [[1]], "k": 2}'
HEAD = b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server in a thread, which waits half a second for bodies and one for heads."""
    limits = Limits(timeout=0.5, keep_alive=1, max_header=2000, max_body=5000)
    server = uvicorn.Server(server_config(app_of(walk_run(Walk()), limits), limits))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
        thread.start()
        yield sock.getsockname()[1]
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def talk(port: int, *parts: bytes, pause: float = 0.0, half_close: bool = False) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # it has closed
                break
            time.sleep(pause)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while part := connection.recv(2**16):
                found += part
        except ConnectionResetError:
            pass
        return found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> str:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.fixture(autouse=True)
def goes_on(port: int) -> Iterator[None]:
    yield
    answer = httpx.post(f"http://127.0.0.1:{port}/recommend", json={"sequences": [[1]], "k": 2})
    assert items_of(answer) == [[2, 3]]


def test_what_is_no_http(port: int):
    assert status_of(talk(port, b"hello\r\n\r\n")) == 400


def test_a_head_that_is_too_long(port: int):
    assert status_of(talk(port, b"GET / HTTP/1.1\r\nx: " + b"y" * 4000)) == 400


def test_a_head_that_trickles_in_is_closed(port: int):
    began = time.monotonic()
    assert talk(port, b"GET / HT", *[b"x"] * 30, pause=0.1) == b""
    assert time.monotonic() - began < 9


def test_a_body_that_trickles_in(port: int):
    head = HEAD + b"content-length: 28\r\n\r\n"
    answer = talk(port, head, *(bytes([byte]) for byte in BODY[:12]), pause=0.1)
    assert status_of(answer) == 408
    assert re.fullmatch(r"body: expected all of it within 0.5 s, got [0-9]+ bytes", error_of(answer))
    assert b"connection: close" in answer.lower()


def test_a_body_that_is_longer_than_it_may(port: int):
    told = talk(port, HEAD + b"content-length: 99999999\r\n\r\n")
    assert (status_of(told), error_of(told)) == (413, "body: expected at most 5000 bytes, got 99999999")
    chunks = [b"1000\r\n" + b" " * 4096 + b"\r\n"] * 2
    found = talk(port, HEAD + b"transfer-encoding: chunked\r\n\r\n", *chunks)
    assert (status_of(found), error_of(found)) == (413, "body: expected at most 5000 bytes, got more")


def test_a_client_that_has_closed_its_side_is_answered(port: int):
    whole = talk(port, HEAD + b"content-length: 28\r\n\r\n" + BODY, half_close=True)
    assert status_of(whole) == 200
    part = talk(port, HEAD + b"content-length: 28\r\n\r\n" + BODY[:9], half_close=True)
    assert status_of(part) == 408


def test_a_client_that_goes_away(port: int):
    for sent in (
        b"",
        b"POST /rec",
        HEAD + b"content-length: 28\r\n\r\n" + BODY[:9],
        HEAD + b"content-length: 28\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # resets it


def test_requests_of_one_connection_are_answered_in_turn(port: int):
    one = HEAD + b"content-length: 28\r\n\r\n" + BODY
    last = HEAD + b"connection: close\r\ncontent-length: 28\r\n\r\n" + BODY
    assert talk(port, one + one + last).count(b"HTTP/1.1 200 OK") == 3


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged(port: int, monkeypatch: pytest.MonkeyPatch):
    has_delay: list[int] = []
    made = PatientProtocol.connection_made

    def connection_made(self: PatientProtocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        has_delay.append(
            transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        )

    monkeypatch.setattr(PatientProtocol, "connection_made", connection_made)
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    assert has_delay == [1]
