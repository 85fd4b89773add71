"""Signs of life of a training's processes: one that gives none, stopped or stuck, is ended and named."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SILENCE = 45.0
"""Seconds without a sign of life."""

_EVERY = 1.0


class Heartbeat:
    """Of ``number`` processes, in memory that they share; `beat` is a process's, `watch` their parent's.

    A thread of Python beats. It does so while others wait for a collective, and not in a process that is stopped or
    does not let go of the interpreter.
    """

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._beats: Any = context.Array("d", number, lock=False)
        self._processes: Any = context.Array("l", number, lock=False)
        self.silent: set[int] = set()

    def beat(self, rank: int) -> None:
        """Begins to give signs of life, until the process ends."""

        def work() -> None:
            while True:
                self._beats[rank] = time.monotonic()
                time.sleep(_EVERY)

        self._processes[rank] = os.getpid()
        threading.Thread(target=work, name="heartbeat", daemon=True).start()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, a process that has given signs of life and is silent is ended; ``silent`` has its rank."""
        ended = threading.Event()

        def work() -> None:
            awake = before = time.monotonic()
            while not ended.wait(_EVERY):
                now = time.monotonic()
                if now - before > 5 * _EVERY:  # all have slept, as by a terminal's Ctrl-Z
                    awake = now
                before = now
                for rank, last in enumerate(self._beats):
                    if last and now - max(last, awake) > SILENCE and rank not in self.silent:
                        self.silent.add(rank)
                        os.kill(self._processes[rank], signal.SIGKILL)

        thread = threading.Thread(target=work, name="watch processes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
