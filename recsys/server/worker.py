"""Work in a thread beside the event loop, which work that never ends does not keep from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """A thread that does one work after the other; a daemon, as a process waits for others at its end, however long."""

    def __init__(self, name: str) -> None:
        self._work = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` comes to, or raises; who is cancelled before it begins leaves it undone."""
        future = Future[T]()
        self._work.put((future, work))
        return await asyncio.wrap_future(future)

    def close(self, seconds: float) -> bool:
        """Whether it ended in so many ``seconds``, which a work that hangs does not."""
        self._work.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                _settle(future, work)
            del job, future, work  # else they are kept until the next comes


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(as_exception(error))


def as_exception(error: BaseException) -> Exception:
    """``error``, or a ``RuntimeError`` of one that would end the event loop, or that no future takes."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
