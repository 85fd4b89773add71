"""Work of the host beside the training: batches ahead of their turn, files behind it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from types import ModuleType
from typing import Generic, TypeVar

T = TypeVar("T")

_END = object()


def import_large(module: str) -> ModuleType:
    """Imports ``module`` while Python's collector of cycles waits, which would look again and again at the hundreds of
    thousands of objects that a framework's import makes, for a sixth of its time."""
    with no_collector():
        return importlib.import_module(module)


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Python's collector of cycles waits, in all threads, until the last of those inside leaves."""
    global _inside, _collects
    with _lock:
        if not _inside:
            _collects = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _collects:
                gc.enable()


_lock, _inside, _collects = threading.Lock(), 0, True


def import_ahead(module: str) -> None:
    """Imports ``module``, which takes seconds and is needed later, while other work goes on; who imports it meanwhile
    waits for it, and so does the end of the process. What goes wrong goes wrong again there."""

    def work() -> None:
        with contextlib.suppress(Exception):
            import_large(module)

    threading.Thread(target=work, name=f"import {module}").start()


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Starts ``work()`` in a thread of this ``name``, for whose end the process waits."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised by result()
            future.set_exception(error)

    threading.Thread(target=run, name=name).start()
    return future


@contextlib.contextmanager
def short_turns(seconds: float = 5e-4) -> Iterator[None]:
    """Inside, threads of Python wait for each other no longer than so: for ten times as long by default, in which a GPU
    that waits for its next kernel does several steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def prefetched(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """``items`` in order, made in a thread at most ``depth`` ahead; what making them raises is raised here. A consumer
    that leaves early ends the thread."""
    ready: queue.Queue[object] = queue.Queue(depth)
    left = threading.Event()

    def put(item: object) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item  # pyright: ignore[reportReturnType]
    finally:
        left.set()
        thread.join()


class Writer(Generic[T]):
    """Writes items in a thread of its own, in the order in which they came, while their maker goes on.

    Where items come faster than they are written, those that wait become one, ``merge(earlier, later)``: the maker
    never waits, and at most one waits. What ``write`` raises is raised by the next `submit` or at the end; later items
    are not written then. To be used in a ``with``, which ends when all is written, after an error too.
    """

    def __init__(self, write: Callable[[T], None], merge: Callable[[T, T], T]) -> None:
        self._write, self._merge = write, merge
        self._waiting: list[T] = []  # none or one
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def __enter__(self) -> Writer[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end()
        if kind is None:
            self._raise()

    def submit(self, item: T) -> None:
        """Has ``item`` written after those before it."""
        self._raise()
        with self._changed:
            self._waiting = [self._merge(self._waiting[0], item) if self._waiting else item]
            self._changed.notify()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until ``condition()``, which the writing of what was submitted brings about."""
        while not condition():
            self._raise()
            time.sleep(0.002)

    def finish(self) -> None:
        """Waits until all is written."""
        self._end()
        self._raise()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                (item,), self._waiting = self._waiting, []
            try:
                self._write(item)
            except BaseException as error:
                self._error = error
                return
