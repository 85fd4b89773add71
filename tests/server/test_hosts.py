"""A page of a stranger's, whose name is made to point to this machine, gets no answers."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from cce_minus.recsys.server.hosts import Hosts
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.metrics import Metrics

from tests.server.walks import Walk, asked, client_of, keeper_of, walk_run


@pytest.mark.parametrize(
    ("listens", "others", "given", "is_allowed"),
    [
        ("127.0.0.1", (), "localhost:8000", True),
        ("127.0.0.1", (), "LocalHost.", True),
        ("127.0.0.1", (), "127.0.0.1", True),
        ("127.0.0.1", (), "[::1]:8000", True),
        ("127.0.0.1", (), "[::1]", True),
        ("127.0.0.1", (), "evil.example:8000", False),
        ("127.0.0.1", (), "127.0.0.1.evil.example", False),
        ("127.0.0.1", (), "localhost@evil.example", False),
        ("127.0.0.1", (), "localhost:80:80", False),
        ("127.0.0.1", (), "10.0.0.1", False),
        ("127.0.0.1", (), "::1", False),
        ("127.0.0.1", (), "", False),
        ("box.local", (), "box.local:8000", True),
        ("10.0.0.1", (), "10.0.0.1:8000", True),
        ("10.0.0.1", (), "10.0.0.2:8000", False),
        ("0.0.0.0", (), "10.0.0.1:8000", True),
        ("0.0.0.0", (), "evil.example", False),
        ("::", (), "[fe80::1]:8000", True),
        ("::", (), "10.0.0.1", True),
        ("127.0.0.1", ("films.example",), "films.example", True),
        ("127.0.0.1", ("films.example",), "other.example", False),
        ("127.0.0.1", ("*",), "other.example", True),
    ],
)
def test_names(listens: str, others: tuple[str, ...], given: str, is_allowed: bool):
    refused = Hosts(listens, others).refused([(b"accept", b"*/*"), (b"host", given.encode())])
    assert (refused is None) is is_allowed


def test_one_of_two_names_and_none():
    hosts = Hosts("127.0.0.1")
    assert hosts.refused([(b"host", b"localhost"), (b"host", b"evil.example")]) is not None
    assert hosts.refused([]) == (
        "host: expected one of localhost, 127.0.0.1, ::1, got none; the server's option --allow-host allows others"
    )


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/items", "/recommend", "/similar", "/nowhere"])
def test_no_path_is_answered(path: str):
    method = "POST" if path in ("/recommend", "/similar") else "GET"
    headers = {"host": "evil.example:8000"}
    answer = asked(lambda client: client.request(method, path, json={"users": [1]}, headers=headers))
    assert answer.status_code == 421
    assert answer.json()["error"].startswith("host: expected one of localhost, 127.0.0.1, ::1, got 'evil.example:8000'")


def test_refused_requests_are_counted():
    async def work(client: httpx.AsyncClient) -> str:
        await client.get("/health", headers={"host": "evil.example"})
        return (await client.get("/metrics")).text

    assert 'cce_minus_requests_total{path="/health",status="421"} 1' in asked(work)


def test_names_that_are_allowed():
    async def run() -> int:
        metrics = Metrics()
        keeper, hosts = keeper_of(walk_run(Walk()), metrics), Hosts("127.0.0.1", ["films.example"])
        async with client_of(keeper, Limits(), metrics, hosts=hosts) as client:
            return (await client.get("/health", headers={"host": "films.example"})).status_code

    assert asyncio.run(run()) == 200
