"""What stands before the routes: counts requests, and tells of errors."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bodies import CLOSE
from .hosts import Hosts
from .metrics import Metrics

logger = logging.getLogger(__name__)


_MOST_TOLD = 1000
"""Characters of an error, which may quote what was sent."""


def told(methods: Mapping[str, str], request: Request, error: Exception) -> Response:
    """An ``HTTPException`` as JSON; ``methods`` are those of the server's paths."""
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 404:
        text = f"path: expected one of {', '.join(methods)}, got {request.url.path!r:.80}"
    elif error.status_code == 405:
        text = f"method: expected {methods[request.url.path]}, got {request.method:.20}"
    return JSONResponse({"error": text[:_MOST_TOLD]}, error.status_code, headers=error.headers)


def fault(request: Request, error: Exception) -> Response:
    """What a client hears of a fault of the server, which then goes on to `Front`."""
    del request, error
    return JSONResponse({"error": "server: expected an answer, got a fault of the server, which its log tells of"}, 500)


class Front:
    """Passes requests on to ``app`` that call the server by one of its ``hosts``, others get the status 421, and counts
    them by those of the ``paths`` that there are. A fault becomes the status 500 to the client, and a traceback in the
    log."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str], hosts: Hosts) -> None:
        self._app, self._metrics, self._paths, self._hosts = app, metrics, paths, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        refused = self._hosts.refused(scope["headers"])
        app = self._app if refused is None else JSONResponse({"error": refused[:_MOST_TOLD]}, 421, headers=CLOSE)
        try:
            await app(scope, receive, counted)
        except Exception:  # told of as 500 by the application already
            logger.exception("%s %r failed", scope["method"], scope["path"])
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.request(path, status, time.perf_counter() - began)
