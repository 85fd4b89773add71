"""The command ``serve`` before it serves."""

from __future__ import annotations

import importlib.util
import logging
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from cce_minus.recsys.cli.commands import build_app
from cce_minus.recsys.serving import requests
from typer.testing import CliRunner

from tests.server.walks import served


def run(*arguments: Any) -> Any:
    def refused(*_: Any) -> Any:
        raise AssertionError("the model was loaded")

    return CliRunner().invoke(build_app("torch", refused, refused), ["serve", *map(str, arguments)])


def error_of(result: Any) -> str:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--max-body", 0), "max_body: expected a positive number, got 0"),
        (("--timeout", "nan"), "timeout: expected a positive number, got nan"),
        (("--batch-ms", -1), "batch_ms: expected a number from 0 up, got -1"),
        (("--watch", -1), "watch: expected a number of seconds from 0 to 86400, got -1"),
        (("--watch", "1e10"), "watch: expected a number of seconds from 0 to 86400, got 10000000000.0"),
        (("--allow-host", "films.example:80"), "allow_host: expected a name or an address without a port, or *, got"),
        (("--max-bodies", 1000), "max_bodies: expected at least max_body = 1048576, got 1000"),
        (("--max-items", 0), "max_items: expected a positive number, got 0"),
        (("--port", 70000), "port: expected an integer from 0 to 65535, got 70000"),
        (("--host", "no.such.host.invalid"), "host: expected an address and port to listen on"),
    ],
)
def test_options(films: Path, arguments: tuple[Any, ...], text: str):
    assert text in error_of(run(films, *arguments))


def test_a_folder_without_a_run(tmp_path: Path):
    assert "run: expected the folder of a training run" in error_of(run(tmp_path))


def test_a_port_that_is_taken(films: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "host: expected an address and port" in error_of(run(films, "--port", taken.getsockname()[1]))
    # the process may go on to what has such things to tell
    assert logging.getLogger(requests.__name__).level == logging.NOTSET


def test_without_the_packages(films: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else found(name, *rest)
    )
    assert error_of(run(films)) == (
        'error: serve: expected the packages starlette and uvicorn, got no uvicorn; pip install "cce-minus[serve]" '
        "installs them"
    )


def test_by_default_this_machine_alone_is_served(films: Path):
    with served(films) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert not any("authentication" in line for line in server.log)
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))


def test_another_address_is_warned_of(films: Path):
    with served(films, "--host", "0.0.0.0") as server:
        assert sum("put a proxy with authentication before it" in line for line in server.log) == 1


def test_hosts_that_are_allowed(films: Path):
    with served(films, "--allow-host", "films.example", "--allow-host", "other.example") as server:
        names = ("films.example", "other.example:8000", "evil.example")
        found = [httpx.get(f"{server.url}/health", headers={"host": name}).status_code for name in names]
        assert found == [200, 200, 421]


def test_jax_serves_too(films: Path):
    with served(films, "--batch-rows", "1", framework="jax") as server:
        assert server.health()["framework"] == "jax"
