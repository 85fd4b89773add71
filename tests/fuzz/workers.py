"""Calls shared out among processes: each takes one signature after the other, so that what compiles does so once."""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import jax
import torch

from tests.fuzz.calls import Outcome, Plan, outcome
from tests.interpreter import improve

BROKEN = 3  # the exit code of a process whose GPU context is lost


@dataclass(frozen=True)
class Died:
    """A process that ended, and the call that it was at."""

    number: int
    exit_code: int | None


def impls_of(impl: str, dtype: str, device: str) -> tuple[str, ...]:
    """How a call is run: bfloat16 is wrong in Triton's interpreter."""
    wanted = ("triton", "reference") if impl == "both" else (impl,)
    return tuple(each for each in wanted if each != "triton" or device == "cuda" or dtype != "bfloat16")


def prepare(device: str) -> None:
    """What a process does before its first call."""
    torch.set_num_threads(1)
    if device == "cpu":
        improve()
        jax.config.update(
            "jax_disable_most_optimizations", True
        )  # each signature compiles, which takes most of the time


def outcomes(plan: Plan, numbers: Iterable[int], impl: str, device: str) -> Iterator[Outcome]:
    for number in numbers:
        dtype = str(plan.signature_of(number).dtype).removeprefix("torch.")
        for each in impls_of(impl, dtype, device):
            yield outcome(plan, number, each, device)


def run(
    plan: Plan, calls: int, impl: str, device: str, workers: int, seconds: float = float("inf")
) -> Iterator[Outcome | Died]:
    """What becomes of calls 0 .. ``calls``, as they end; after ``seconds`` none begins."""
    end = time.time() + seconds
    shares = [list(range(first, calls, plan.signatures)) for first in range(min(plan.signatures, calls))]
    if workers == 1:
        for number in itertools.chain(*shares):
            if time.time() < end:
                yield from outcomes(plan, [number], impl, device)
        return
    context = multiprocessing.get_context("spawn")
    waiting, results = context.Queue(), context.Queue()
    for share in shares:
        waiting.put(share)
    arguments = (plan, waiting, results, impl, device, end)
    processes: dict[int, BaseProcess] = {}
    at: dict[int, int] = {}  # the call that each process runs
    names = itertools.count()

    def start() -> None:
        name = next(names)
        processes[name] = context.Process(target=_work, args=(name, *arguments), daemon=True)
        processes[name].start()

    for _ in range(workers):
        start()
    while processes:
        try:
            name, found = results.get(timeout=1)
        except queue.Empty:
            for name, process in list(processes.items()):
                if process.exitcode is not None:
                    del processes[name]
                    if process.exitcode != BROKEN and process.exitcode != 0:
                        yield Died(at.get(name, -1), process.exitcode)
                    if process.exitcode != 0 and time.time() < end:
                        start()
            continue
        if isinstance(found, Outcome):
            yield found
        else:
            at[name] = found


def _work(name: int, plan: Plan, waiting: Any, results: Any, impl: str, device: str, end: float) -> None:
    prepare(device)
    while True:
        try:
            share = waiting.get(timeout=5)
        except queue.Empty:
            return
        for place, number in enumerate(share):
            if time.time() > end:
                return
            results.put((name, number))
            for each in outcomes(plan, [number], impl, device):
                results.put((name, each))
                if each.failure and ("CUDA error" in each.failure or "illegal memory" in each.failure):
                    waiting.put(share[place + 1 :])
                    sys.exit(BROKEN)
