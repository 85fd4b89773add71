"""Signs of life of a training's processes: of one that gives none, stopped or stuck, the training ends and it is named.

Their parent watches those that this package starts, and each watches all others, as under torchrun and on other hosts.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

logger = logging.getLogger(__name__)

SILENCE = 40.0
"""Seconds without a sign of life after which a parent ends a process."""

OF_OTHERS = 50.0
"""The same after which a process ends itself because of another one, where no parent has done so."""

_EVERY = 1.0


class Awake:
    """When this process has been awake since, by ``time.monotonic``: all have slept, as by a terminal's Ctrl-Z."""

    def __init__(self) -> None:
        self._since = self._before = time.monotonic()

    def since(self) -> float:
        """To be asked once in `_EVERY`."""
        now = time.monotonic()
        if now - self._before > 5 * _EVERY:
            self._since = now
        self._before = now
        return self._since


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
            awake = Awake()
            while not ended.wait(_EVERY):
                now, since = time.monotonic(), awake.since()
                for rank, last in enumerate(self._beats):
                    if last and now - max(last, since) > SILENCE and rank not in self.silent:
                        self.silent.add(rank)
                        os.kill(self._processes[rank], signal.SIGKILL)

        thread = threading.Thread(target=work, name="watch processes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def watching_others(store: dist.Store, rank: int, number: int) -> Iterator[None]:
    """Inside, this process, ``rank`` of ``number``, gives signs of life by a ``store`` of their own, and ends with a
    message once another one, which has given some, is silent."""
    ended = threading.Event()

    def work() -> None:
        awake, seen, heard = Awake(), [b""] * number, [0.0] * number
        for count in itertools.count():
            store.set(str(rank), str(count))
            if ended.wait(_EVERY):
                return
            now, since = time.monotonic(), awake.since()
            for other in range(number):
                if other == rank or not store.check([str(other)]):
                    continue
                last = store.get(str(other))
                if last != seen[other]:
                    seen[other], heard[other] = last, now
                if last != _ENDED and now - max(heard[other], since) > OF_OTHERS:
                    _end(other, number)

    def watch() -> None:
        with suppress(dist.DistError):  # where the store's process has ended, and so does this one
            work()

    thread = threading.Thread(target=watch, name="watch other ranks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(dist.DistError):
            store.set(str(rank), _ENDED)


_ENDED = b"ended"


def _end(silent: int, number: int) -> None:
    logger.error(
        "devices: expected %d processes that give signs of life, got rank %d silent for %.0f s; resume goes on from "
        "the last checkpoint", number, silent, OF_OTHERS,
    )  # fmt: skip
    os._exit(1)  # the main thread may wait for the silent one for ever
