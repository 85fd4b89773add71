"""The routes of a server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..data.catalog import Catalog
from ..errors import ConfigError, DataError, LowMemoryError
from .batching import Batcher
from .bodies import Bodies, Body
from .front import Front, fault, told
from .hosts import Hosts
from .item_search import asked_items, find_items
from .limits import Limits
from .loaded_run import LoadedRun
from .metrics import Metrics
from .page import read_page
from .questions import Question
from .reload import RunKeeper
from .schema import Ask, MalformedError, ask_recommend, ask_similar
from .worker import Worker

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SMALL_BODY, _SMALL_ANSWER = 2**13, 250
"""Bytes of a body and items of an answer that the event loop reads and writes itself, in less than a millisecond."""

_LATER = {"Retry-After": "1"}

_PATIENCE = 1.0
"""Seconds that each thread has to end in when the server does."""


def make_app(
    keeper: RunKeeper, limits: Limits, metrics: Metrics, hosts: Hosts, failed: Callable[[BaseException], object]
) -> Front:
    """The application that answers with what ``keeper`` has loaded; its lifespan has the thread of the model.

    ``failed`` is called with what has ended that thread's work: nothing more is answered then.
    """
    server = _Server(keeper, limits, metrics, failed)
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
    return Front(app, metrics, tuple(routes), hosts)


class _Server:
    def __init__(
        self, keeper: RunKeeper, limits: Limits, metrics: Metrics, failed: Callable[[BaseException], object]
    ) -> None:
        self._keeper, self._limits, self._metrics, self._failed = keeper, limits, metrics, failed
        self._batcher = Batcher(limits, metrics)
        self._bodies = Bodies(limits)
        self._page, self._page_headers = read_page()
        self._inside = 0  # requests whose bodies are read and that are not answered

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        model = asyncio.create_task(self._batcher.run())
        model.add_done_callback(self._ended)
        self._checks, self._search, self._answers = workers = [Worker(name) for name in ("checks", "search", "answers")]
        yield
        model.cancel()
        await asyncio.wait([model])
        for worker in workers:
            worker.close(_PATIENCE)

    def _ended(self, model: asyncio.Task[None]) -> None:
        if not model.cancelled() and (error := model.exception()) is not None:
            logger.critical("server: expected a model that answers, got none; it stops", exc_info=error)
            self._failed(error)

    async def page(self, request: Request) -> Response:
        del request
        return HTMLResponse(self._page, headers=self._page_headers)

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
        search = partial(_searched, catalog, text, limit, self._limits.timeout)
        return await self._in_time(self._search.do(search))

    async def recommend(self, request: Request) -> Response:
        return await self._answer(request, ask_recommend)

    async def similar(self, request: Request) -> Response:
        return await self._answer(request, ask_similar)

    async def _answer(self, request: Request, ask: Ask) -> Response:
        body = Body(self._bodies)
        try:
            await body.read_json(request)
            return await self._in_time(self._answered(self._loaded(), ask, body))
        except (LowMemoryError, MemoryError) as error:
            logger.error("%s: too little memory for the answer", request.url.path, exc_info=error)
            text = "memory: expected enough for the answer, got too little; fewer rows at once need less"
            raise HTTPException(503, text, _LATER) from error
        finally:
            body.drop()

    async def _answered(self, loaded: LoadedRun, ask: Ask, body: Body) -> Response:
        """The answer of ``loaded``, whatever is loaded meanwhile."""
        question = await self._asked(loaded, ask, body)
        body.drop()  # it may wait long, with many others
        found = await self._batcher.ask(question)
        write = partial(question.answer, found)
        is_small = question.rows * question.k <= _SMALL_ANSWER
        return Response(write() if is_small else await self._answers.do(write), media_type="application/json")

    async def _asked(self, loaded: LoadedRun, ask: Ask, body: Body) -> Question:
        check = partial(_checked, ask, body.content, loaded, self._limits)
        try:
            return check() if len(body.content) <= _SMALL_BODY else await self._checks.do(check)
        except LowMemoryError:
            raise
        except MalformedError as error:
            raise HTTPException(400, str(error)) from error
        except (ConfigError, DataError) as error:
            raise HTTPException(422, str(error)) from error

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` comes to; raises ``HTTPException`` 504 where it takes too long, and 503 where too many wait."""
        seconds = self._limits.timeout
        clock = asyncio.timeout(seconds)
        with self._counted(work):
            try:
                async with clock:
                    return await work
            except TimeoutError as error:
                if not clock.expired():  # it is the model's
                    raise
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


def _searched(catalog: Catalog, text: str, limit: int, seconds: float) -> Response:
    return JSONResponse({"items": find_items(catalog, text, limit, seconds)})


def _checked(ask: Ask, body: bytes, loaded: LoadedRun, limits: Limits) -> Question:
    question = ask(body, loaded, limits)
    _ = question.key  # made here, not in the event loop
    return question
