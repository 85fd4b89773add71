"""The routes of a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import ConfigError, DataError
from .batching import Batcher
from .bodies import read_json_body
from .front import Front, fault, told
from .item_search import asked_items, find_items
from .limits import Limits
from .loaded_run import LoadedRun
from .metrics import Metrics
from .questions import Found, Question
from .reload import RunKeeper
from .schema import Ask, MalformedError, ask_recommend, ask_similar

T = TypeVar("T")

_SMALL_BODY, _SMALL_ANSWER = 2**13, 2000
"""Bytes of a body and items of an answer that the event loop reads and writes itself, in less than a millisecond."""

_LATER = {"Retry-After": "1"}

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def make_app(keeper: RunKeeper, limits: Limits, metrics: Metrics) -> Front:
    """The application that answers with what ``keeper`` has loaded; its lifespan has the thread of the model."""
    server = _Server(keeper, limits, metrics)
    routes = {
        "/": ("GET", server.page),
        "/health": ("GET", server.health),
        "/metrics": ("GET", server.metrics_text),
        "/items": ("GET", server.items),
        "/recommend": ("POST", server.recommend),
        "/similar": ("POST", server.similar),
    }
    methods = {path: method for path, (method, _) in routes.items()}
    app = Starlette(
        routes=[Route(path, endpoint, methods=[method]) for path, (method, endpoint) in routes.items()],
        lifespan=server.lifespan,
        exception_handlers={HTTPException: partial(told, methods), Exception: fault},
    )
    app.router.redirect_slashes = False
    return Front(app, metrics, tuple(routes))


class _Server:
    def __init__(self, keeper: RunKeeper, limits: Limits, metrics: Metrics) -> None:
        self._keeper, self._limits, self._metrics = keeper, limits, metrics
        self._batcher = Batcher(limits, metrics)
        self._page = Path(__file__).with_name("page.html").read_bytes()
        self._inside = 0  # requests whose bodies are read and that are not answered

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        model = asyncio.create_task(self._batcher.run())
        with ThreadPoolExecutor(1, "checks") as self._checks, ThreadPoolExecutor(1, "search") as self._search:
            yield
        model.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await model

    async def page(self, request: Request) -> Response:
        del request
        return HTMLResponse(self._page, headers=_PAGE_HEADERS)

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok", **self._loaded().about})

    async def metrics_text(self, request: Request) -> Response:
        del request
        text = self._metrics.text(len(self._batcher), self._keeper.loaded is not None)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def items(self, request: Request) -> Response:
        catalog = self._loaded().catalog
        try:
            text, limit = asked_items(request.query_params.multi_items(), self._limits.max_k)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        search = partial(find_items, catalog, text, limit, self._limits.timeout)
        return JSONResponse({"items": await self._in_time(_in_thread(self._search, search))})

    async def recommend(self, request: Request) -> Response:
        return await self._answer(request, ask_recommend)

    async def similar(self, request: Request) -> Response:
        return await self._answer(request, ask_similar)

    async def _answer(self, request: Request, ask: Ask) -> Response:
        body = await read_json_body(request, self._limits)
        return await self._in_time(self._answered(self._loaded(), ask, body))

    async def _answered(self, loaded: LoadedRun, ask: Ask, body: bytes) -> Response:
        """The answer of ``loaded``, whatever is loaded meanwhile."""
        check = partial(ask, body, loaded, self._limits)
        try:
            question = check() if len(body) <= _SMALL_BODY else await _in_thread(self._checks, check)
            found = await self._batcher.ask(question)
        except MalformedError as error:
            raise HTTPException(400, str(error)) from error
        except (ConfigError, DataError) as error:
            raise HTTPException(422, str(error)) from error
        write = partial(_written, question, found)
        is_small = question.rows * question.k <= _SMALL_ANSWER
        return write() if is_small else await _in_thread(self._checks, write)

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` comes to; raises ``HTTPException`` 504 where it takes too long, and 503 where too many wait."""
        seconds = self._limits.timeout
        with self._counted(work):
            try:
                async with asyncio.timeout(seconds):
                    return await work
            except TimeoutError as error:
                raise HTTPException(504, f"timeout: expected an answer within {seconds:g} s, got none") from error

    @contextlib.contextmanager
    def _counted(self, work: Coroutine[Any, Any, object]) -> Iterator[None]:
        most = self._limits.max_waiting
        if self._inside >= most:
            work.close()
            raise HTTPException(503, f"max_waiting: expected at most {most} waiting requests, got one more", _LATER)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def _loaded(self) -> LoadedRun:
        if self._keeper.loaded is None:
            raise HTTPException(503, "run: expected one that is loaded, got one that is being loaded", _LATER)
        return self._keeper.loaded


def _written(question: Question, found: Found) -> Response:
    return JSONResponse(question.answer(found))


async def _in_thread(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)
