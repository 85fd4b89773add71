"""The run that a server answers with: loaded at the start, and again when its folder holds another one."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError, DataError
from ..run.run_directory import RunDirectory
from .loaded_run import LoadedRun
from .metrics import Metrics

logger = logging.getLogger(__name__)

State = tuple[object, ...]


class RunKeeper:
    """Keeps ``loaded`` what is in the folder ``path``, which may be a link to a run, in a thread of its own.

    ``load`` makes a `LoadedRun` of a folder. The folder is looked at every ``seconds`` (never for 0), and when `wake`
    is called. A new run is loaded beside the old one, which answers until then, and takes its place in one step; one
    that cannot be loaded leaves the old one and is logged.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[Path], LoadedRun],
        *,
        seconds: float,
        metrics: Metrics,
    ) -> None:
        self._path, self._load, self._seconds, self._metrics = path, load, seconds, metrics
        self.loaded: LoadedRun | None = None
        self.failure: Exception | None = None
        self._woken, self._left = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, failed: Callable[[], object]) -> None:
        """Begins to load; ``failed`` is called, and `failure` says why, where the first run cannot be."""
        self._thread = threading.Thread(target=self._work, args=(failed,), name="reload", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Has the run loaded again, whether it has changed or not."""
        self._woken.set()

    def stop(self) -> None:
        """Ends the thread; what it loads at the moment is left to the end of the process."""
        self._left.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _work(self, failed: Callable[[], object]) -> None:
        try:
            tried = seen = self._state()
            self.loaded = self._load(self._path.resolve())
        except Exception as error:
            self.failure = error
            failed()
            return
        while not self._left.is_set():
            try:
                tried, seen = self._look(tried, seen)
            except Exception as error:  # nothing ends the thread, which would not be noticed
                self._refuse(error)
                self._left.wait(1)  # what fails at once would go on without a pause

    def _look(self, tried: State, seen: State) -> tuple[State, State]:
        """Takes up what is in the folder, in its turn, unless it is what was ``tried``; what is there now."""
        woken = self._woken.wait(self._seconds or None)
        self._woken.clear()
        if self._left.is_set():
            return tried, seen
        state = self._state()
        # what is being written changes from look to look: it is read once it has settled
        if woken or (state != tried and state == seen):
            tried = state
            self._take_up()
        return tried, state

    def _take_up(self) -> None:
        before = None
        try:
            loaded = self._read()
        except Exception as error:
            self._refuse(error)
        else:
            before = None if self.loaded is None else weakref.ref(self.loaded)
            self.loaded = loaded
            del loaded
            self._metrics.reload("loaded")
        self._free(before)

    def _free(self, before: weakref.ref[LoadedRun] | None) -> None:
        """Frees what is left of a model, which is full of cycles, and as large as the new one: of the run ``before``
        once the requests that it answers have let it go, as it would stay where it is while they have it."""
        for seconds in _FREED_WITHIN:
            until = time.monotonic() + seconds
            while before is not None and before() is not None and time.monotonic() < until:
                if self._left.wait(0.02):
                    return
            gc.collect()
            if before is None or before() is None:
                return

    def _read(self) -> LoadedRun:
        folder = self._path.resolve()
        before = _files(folder)
        loaded = self._load(folder)
        if _files(folder) != before:
            raise ConfigError(f"run: expected files that stay while they are read, got others in {folder}")
        return loaded

    def _refuse(self, error: Exception) -> None:
        is_known = isinstance(error, ConfigError | DataError)
        logger.error(
            "%s cannot be served, the run before it goes on: %s",
            self._name(), error, exc_info=None if is_known else error,
        )  # fmt: skip
        self._metrics.reload("refused")

    def _name(self) -> str:
        try:
            return self._path.resolve().name
        except (OSError, RuntimeError):  # a link that leads to itself
            return self._path.name

    def _state(self) -> State:
        try:
            folder = self._path.resolve()
        except (OSError, RuntimeError):  # a link that leads to itself
            return ()
        return (folder, *_files(folder))


_PATIENCE = 5.0

_FREED_WITHIN = (1.0, 5.0, 30.0)
"""Seconds until a run that may still be answering is looked for among the garbage: where an answer failed, its error
keeps the run, in a cycle; where a call of the model hangs, nothing frees it."""


def _files(folder: Path) -> State:
    """What changes when files of a run do."""
    files = RunDirectory.of(folder)
    return tuple(map(_stamp, (files.config, files.catalog, files.best_weights, files.result)))


def _stamp(path: Path) -> State:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
