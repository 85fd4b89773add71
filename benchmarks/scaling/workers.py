"""Processes that measure side by side, and are ended where one of them fails or is silent."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

SILENCE = 110.0  # seconds that a process may take for one stage, of which compiling a step is the longest
_OTHERS = 3.0  # seconds in which others may say what they died of: the first to fail is often the one that was left

Tell = Callable[[str], None]


class WorkersError(Exception):
    """A process failed, ended or was silent; ``stages`` are what the processes were at."""

    def __init__(self, message: str, stages: list[str]) -> None:
        super().__init__(message)
        self.stages = stages


def run_together(
    call: Callable[..., Any], number: int, arguments: tuple[object, ...], environment: Mapping[str, str],
    silence: float = SILENCE,
) -> list[Any]:  # fmt: skip
    """What ``call(rank, tell, *arguments)`` returns in each of ``number`` processes with these variables of the
    environment, where ``tell(stage)`` says what a process begins with.

    Raises ``WorkersError``, which names the ranks, where a process fails, ends or does not say anything for ``silence``
    seconds. None is left running.
    """
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    pending: dict[Connection, int] = {}
    try:
        with _environment(environment):
            for rank in range(number):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(call, rank, theirs, arguments), daemon=True)
                process.start()
                theirs.close()  # so that its end is seen when the process ends
                processes.append(process)
                pending[ours] = rank
        found = _collected(pending, number, silence)
        for process in processes:
            process.join(10.0)  # a library that does not come to its end has nothing more to say
        return found
    finally:
        for process in processes:
            process.kill()
            process.join()


def _collected(pending: dict[Connection, int], number: int, silence: float) -> list[Any]:
    stages, heard = ["starting"] * number, [time.monotonic()] * number
    found: list[Any] = [None] * number
    failures: list[str] = []
    deadline = float("inf")
    while pending and time.monotonic() < deadline:
        for connection in multiprocessing.connection.wait(list(pending), timeout=0.5):
            rank = pending[connection]  # type: ignore[index]
            try:
                kind, value = connection.recv()  # type: ignore[union-attr]
            except EOFError:
                kind, value = "failed", "the process ended"
            heard[rank] = time.monotonic()
            if kind == "stage":
                stages[rank] = value
                continue
            del pending[connection]  # type: ignore[arg-type]
            if kind == "found":
                found[rank] = value
            else:
                failures.append(f"rank {rank}, {stages[rank]}: {value}")
                deadline = min(deadline, time.monotonic() + _OTHERS)
        now = time.monotonic()
        silent = [rank for rank in pending.values() if now - heard[rank] > silence]
        if silent and not failures:
            said = "; ".join(f"rank {rank}, {stages[rank]}" for rank in silent)
            raise WorkersError(f"nothing was heard for {silence:.0f} s of {said}", stages)
    if failures:
        raise WorkersError("\n".join(failures), stages)
    return found


def _work(call: Callable[..., Any], rank: int, connection: Connection, arguments: tuple[object, ...]) -> None:
    try:
        found = call(rank, lambda stage: connection.send(("stage", stage)), *arguments)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        connection.send(("failed", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"))
        os._exit(1)  # what waits for other ranks would wait for good
    connection.send(("found", found))
    connection.close()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """What is started inside has these variables from its beginning, before it imports anything."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
