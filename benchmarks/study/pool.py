"""Several trainings at once: worker processes, each with one GPU of its own choice, that take tasks until none is
left."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .cells import Run

if TYPE_CHECKING:
    import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def train_all(
    runs: list[Run], data: Path, *, gpus: int, jobs: int, seconds: float
) -> Iterator[tuple[Run, dict[str, object] | Exception]]:
    """Trains ``runs`` as `spread` does. Times of such runs say little: what a step costs is measured apart."""
    return spread(_train, runs, data, gpus=gpus, jobs=jobs, seconds=seconds)


def spread(
    call: Callable[[Task, Path, torch.device], Result],
    tasks: list[Task],
    data: Path,
    *,
    gpus: int,
    jobs: int,
    seconds: float,
) -> Iterator[tuple[Task, Result | Exception]]:
    """Does ``call(task, data, device)`` with ``jobs`` processes on each of ``gpus`` GPUs (0: on the CPU) and yields
    each task with its result as it ends.

    A task that fails comes with its exception. None is begun once ``seconds`` have passed.
    """
    deadline = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    devices: Queue[str] = context.Queue()
    workers = jobs * max(gpus, 1)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    for worker in range(workers):
        devices.put(visible[worker % gpus] if gpus else "")
    waiting = iter(tasks)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_take_device, initargs=(devices,)) as pool:
        pending: dict[Future[Result], Task] = {}

        def submit() -> None:
            if time.monotonic() < deadline:
                for task in itertools.islice(waiting, 1):
                    pending[pool.submit(_on_device, call, task, data)] = task

        for _ in range(workers):
            submit()
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                task = pending.pop(future)
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield task, error if error is not None else future.result()
                submit()


def alone(call: Callable[..., Result], *arguments: object) -> Result:
    """What ``call`` returns in a process of its own, whose GPU memory is free again afterwards."""
    _share_memory()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _share_memory() -> None:
    """Has JAX take a GPU's memory as it needs it: both frameworks, and several processes, may run on one."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _take_device(devices: Queue[str]) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    _share_memory()


def _on_device(call: Callable[[Task, Path, torch.device], Result], task: Task, data: Path) -> Result:
    import torch  # only here: the GPU must have been chosen

    torch.set_num_threads(1)
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    if gpu and not torch.cuda.is_available():  # on the CPU it would take hours
        raise RuntimeError(
            f"GPU {gpu}: not usable in a worker; an MPS daemon must see all GPUs, and so must this command"
        )
    return call(task, data, torch.device("cuda" if gpu else "cpu"))


def _train(run: Run, data: Path, device: torch.device) -> dict[str, object]:
    from .training import train_run

    return train_run(run, data, device)
