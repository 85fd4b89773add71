"""Serves a run until the process is told to stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from ..errors import ConfigError
from ..serving import requests
from .app import make_app
from .connections import PatientProtocol
from .front import Front
from .limits import Limits
from .loaded_run import LoadedRun
from .metrics import Metrics
from .reload import RunKeeper

logger = logging.getLogger(__name__)


def serve(path: Path, load: Callable[[Path], LoadedRun], *, host: str, port: int, watch: float, limits: Limits) -> None:
    """Answers on ``host`` and ``port`` (0: a free one) with what ``load`` makes of the run in ``path``, and of what is
    there later: ``watch`` are the seconds between looks, 0 for none but at SIGHUP.

    SIGTERM and SIGINT end it when the requests that it has are answered. Raises ``ConfigError`` where it cannot listen
    there, and what ``load`` raises at the start.
    """
    # what a request leaves out is for its client to know, not for the log
    logging.getLogger(requests.__name__).setLevel(logging.ERROR)
    metrics = Metrics()
    keeper = RunKeeper(path, load, seconds=watch, metrics=metrics)
    config = server_config(make_app(keeper, limits, metrics), limits)
    with _listening(host, port) as sock:
        address = sock.getsockname()
        shown = f"[{address[0]}]" if sock.family == socket.AF_INET6 else address[0]
        if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            logger.warning(
                "host: %s is reached from other machines, and nothing asks who they are; put a proxy with "
                "authentication before it", host,
            )  # fmt: skip
        logger.info("serving %s on http://%s:%d", path, shown, address[1])
        # uvicorn raises them again at its end, where they would end the process in the middle of it
        before = {number: signal.signal(number, _ended) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            asyncio.run(_serve(uvicorn.Server(config), keeper, sock))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if keeper.failure is not None:
        raise keeper.failure
    logger.info("stopped")


def server_config(app: Front, limits: Limits) -> uvicorn.Config:
    """uvicorn's options: it says nothing of its own to clients, and trusts nothing that they say of others."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=limits.keep_alive,
        h11_max_incomplete_event_size=limits.max_header,
        timeout_graceful_shutdown=int(2 * limits.timeout) + 1,
    )


async def _serve(server: uvicorn.Server, keeper: RunKeeper, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    keeper.start(failed=lambda: loop.call_soon_threadsafe(end))
    loop.add_signal_handler(signal.SIGHUP, keeper.wake)
    try:
        await server.serve([sock])
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await asyncio.to_thread(keeper.stop)


def _ended(number: int, frame: object) -> None:
    del number, frame


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)  # pyright: ignore[reportArgumentType]
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"host: expected an address and port to listen on, got {host}:{port}: {error}") from error
