"""Reads the body of a request, no more of it and no longer than allowed."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from .limits import Limits

CLOSE = {"Connection": "close"}
"""Of an answer before the request is read to its end, behind which no other can be read."""


class Bodies:
    """How many bytes are held of requests whose bodies come, or are not checked yet."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0


class Body:
    """Of one request, which counts among ``bodies`` until it is dropped."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies, self._size, self.content = bodies, 0, b""

    async def read_json(self, request: Request) -> None:
        """Fills ``content``; raises ``HTTPException`` 415 for what is not sent as JSON, 413 for too many bytes, 408 for
        what does not come in time, 400 where the client leaves, and 503 where all bodies together are too large."""
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, f"content-type: expected application/json, got {kind!r:.80}", CLOSE)
        limits = self._bodies.limits
        told = request.headers.get("content-length", "0")
        if told.isdecimal() and int(told) > limits.max_body:
            raise _too_large(limits, told)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(limits.timeout):
                async for part in request.stream():
                    self._hold(len(part))
                    parts.append(part)
        except TimeoutError as error:
            text = f"body: expected all of it within {limits.timeout:g} s, got {self._size} bytes"
            raise HTTPException(408, text, CLOSE) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "body: expected all of it, got a connection that closed", CLOSE) from error
        self.content = b"".join(parts)

    def drop(self) -> None:
        """Lets others have its room; may be called again."""
        self._bodies.held -= self._size
        self._size, self.content = 0, b""

    def _hold(self, size: int) -> None:
        limits = self._bodies.limits
        self._size += size
        self._bodies.held += size
        if self._size > limits.max_body:
            raise _too_large(limits, "more")
        if self._bodies.held > limits.max_bodies:
            text = f"max_bodies: expected at most {limits.max_bodies} bytes of all bodies at once, got more"
            raise HTTPException(503, text, {**CLOSE, "Retry-After": "1"})


def _too_large(limits: Limits, got: str) -> HTTPException:
    return HTTPException(413, f"body: expected at most {limits.max_body} bytes, got {got:.20}", CLOSE)
