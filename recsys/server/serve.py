"""Serves a run until the process is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from ..errors import ConfigError
from ..serving import requests
from .app import make_app
from .connections import PatientProtocol
from .front import Front
from .hosts import Hosts
from .limits import Limits
from .loaded_run import LoadedRun
from .metrics import Metrics
from .open_files import enough_files
from .reload import RunKeeper

logger = logging.getLogger(__name__)


def serve(
    path: Path, load: Callable[[Path], LoadedRun], *,
    host: str, port: int, allow_hosts: Sequence[str], watch: float, limits: Limits,
) -> None:  # fmt: skip
    """Answers on ``host`` and ``port`` (0: a free one) with what ``load`` makes of the run in ``path``, and of what is
    there later: ``watch`` are the seconds between looks, 0 for none but at SIGHUP. Requests may call it by the names of
    `Hosts`.

    SIGTERM and SIGINT end it when the requests that it has are answered, a second one at once. Raises ``ConfigError``
    where it cannot listen there, what ``load`` raises at the start, and ``RuntimeError`` where answering has failed.
    """
    metrics = Metrics()
    keeper = RunKeeper(path, load, seconds=watch, metrics=metrics)
    app = make_app(keeper, limits, metrics, Hosts(host, allow_hosts), failed=lambda error: server.fail(error))
    server = _Server(server_config(app, limits))
    with _quiet(requests.__name__), enough_files(limits.max_connections), _listening(host, port) as sock:
        address = sock.getsockname()
        shown = f"[{address[0]}]" if sock.family == socket.AF_INET6 else address[0]
        if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            logger.warning(
                "host: %s is reached from other machines, and nothing asks who they are; put a proxy with "
                "authentication before it", host,
            )  # fmt: skip
        logger.info("serving %s on http://%s:%d", path, shown, address[1])
        asyncio.run(_serve(server, keeper, sock))
    if keeper.failure is not None:
        raise keeper.failure
    if server.failure is not None:
        raise RuntimeError("server: expected a model that answers, got none") from server.failure
    logger.info("stopped")


class _Server(uvicorn.Server):
    """uvicorn's, which a second signal ends at once, and which does not raise the first again at its end, where it
    would end the process in the middle of it."""

    failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Ends it with this ``failure``."""
        self.failure, self.should_exit = error, True

    def handle_exit(self, sig: int, frame: object) -> None:
        del frame
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """What a request leaves out is for its client to know, not for the log."""
    told = logging.getLogger(name)
    before = told.level
    told.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.setLevel(before)


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
        limit_concurrency=limits.max_connections,  # of which `PatientProtocol` makes its own
        timeout_keep_alive=limits.keep_alive,
        h11_max_incomplete_event_size=limits.max_header,
        timeout_graceful_shutdown=int(2 * limits.timeout) + 1,
    )


async def _serve(server: _Server, keeper: RunKeeper, sock: socket.socket) -> None:
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


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)  # pyright: ignore[reportArgumentType]
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"host: expected an address and port to listen on, got {host}:{port}: {error}") from error
