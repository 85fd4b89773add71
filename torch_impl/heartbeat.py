"""Signs of life of a training's ranks: one that gives none, stopped or stuck, is named and ended by the others."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

logger = logging.getLogger(__name__)

SILENCE = 45.0
"""Seconds without a sign of life."""

_EVERY = 1.0
_GONE = "gone"


@contextmanager
def watching_each_other(store: Any, rank: int, number: int) -> Iterator[None]:
    """Inside, this one of ``number`` ranks gives signs of life in a ``store`` of torch.distributed that is theirs
    alone, and ends one that has given some and is silent: the launcher of the ranks sees that end. Where that one is on
    another host, this one ends.

    A thread of Python gives them. It does so while others wait for a collective, and not in a process that is stopped
    or does not let go of the interpreter.
    """
    left = threading.Event()

    def watch() -> None:
        with suppress(dist.DistError):  # where the store's process has ended, and so does this one
            try:
                _give_and_watch(store, rank, number, left)
            finally:
                store.set(str(rank), _GONE)

    thread = threading.Thread(target=watch, name="watch ranks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(10 * _EVERY)  # not for a store that does not answer


def _give_and_watch(store: Any, rank: int, number: int, left: threading.Event) -> None:
    store.set(f"process {rank}", f"{machine()} {os.getpid()}")
    awake = before = time.monotonic()
    signs, heard = [_GONE] * number, [0.0] * number
    for count in itertools.count():
        store.set(str(rank), str(count))
        if left.wait(_EVERY):
            return
        now = time.monotonic()
        if now - before > 5 * _EVERY:  # all have slept, as by a terminal's Ctrl-Z
            awake = now
        before = now
        for other in range(number):
            sign = store.get(str(other)).decode() if store.check([str(other)]) else _GONE
            if sign != signs[other]:
                signs[other], heard[other] = sign, now
            if sign != _GONE and now - max(heard[other], awake) > SILENCE:
                _end(store, other, number)


def _end(store: Any, silent: int, number: int) -> None:
    if store.add(f"ends {silent}", 1) == 1:  # the first to see it
        logger.error(
            "devices: expected %d processes that give signs of life, got rank %d silent for %.0f s; it is ended, and "
            "resume goes on from the last checkpoint", number, silent, SILENCE,
        )  # fmt: skip
        where, process = store.get(f"process {silent}").decode().rsplit(" ", 1)
        if where == machine():
            with suppress(ProcessLookupError):  # it has ended by now
                os.kill(int(process), signal.SIGKILL)
        else:
            os._exit(1)  # the main thread may wait for the silent one for ever


def machine() -> str:
    """What has the same process numbers: the running host, and where containers have numbers of their own, which."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()
