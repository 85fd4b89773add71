"""Reads the body of a request, no more of it and no longer than allowed."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from .limits import Limits

CLOSE = {"Connection": "close"}
"""Of an answer before the request is read to its end, behind which no other can be read."""


async def read_json_body(request: Request, limits: Limits) -> bytes:
    """The body's bytes; raises ``HTTPException`` 415 for what is not sent as JSON, 413 for too many bytes, 408 for what
    does not come in time, and 400 where the client leaves."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, f"content-type: expected application/json, got {kind!r:.80}", CLOSE)
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > limits.max_body:
        raise _too_large(limits, told)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.timeout):
            async for part in request.stream():
                size += len(part)
                if size > limits.max_body:
                    raise _too_large(limits, "more")
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(
            408, f"body: expected all of it within {limits.timeout:g} s, got {size} bytes", CLOSE
        ) from (error)
    except ClientDisconnect as error:
        raise HTTPException(400, "body: expected all of it, got a connection that closed", CLOSE) from error
    return b"".join(parts)


def _too_large(limits: Limits, got: str) -> HTTPException:
    return HTTPException(413, f"body: expected at most {limits.max_body} bytes, got {got:.20}", CLOSE)
