"""Several trainings at once: worker processes, each with one GPU of its own choice, that take runs until none is
left."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TypeVar

from .cells import Run

Result = TypeVar("Result")


def train_all(
    runs: list[Run], data: Path, *, gpus: int, jobs: int, seconds: float
) -> Iterator[tuple[Run, dict[str, object] | Exception]]:
    """Trains ``runs`` with ``jobs`` processes on each of ``gpus`` GPUs (0: on the CPU) and yields each as it ends.

    A run that fails comes with its exception. No run is begun once ``seconds`` have passed. Times of such runs say
    little: what a step costs is measured apart.
    """
    deadline = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    devices: Queue[str] = context.Queue()
    workers = jobs * max(gpus, 1)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    for worker in range(workers):
        devices.put(visible[worker % gpus] if gpus else "")
    waiting = iter(runs)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_take_device, initargs=(devices,)) as pool:
        pending: dict[Future[dict[str, object]], Run] = {}

        def submit() -> None:
            run = next(waiting, None) if time.monotonic() < deadline else None
            if run is not None:
                pending[pool.submit(_train, run, data)] = run

        for _ in range(workers):
            submit()
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                run = pending.pop(future)
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield run, error if error is not None else future.result()
                submit()


def alone(call: Callable[..., Result], *arguments: object) -> Result:
    """What ``call`` returns in a process of its own, whose GPU memory is free again afterwards."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both frameworks may run in it
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _take_device(devices: Queue[str]) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()


def _train(run: Run, data: Path) -> dict[str, object]:
    import torch  # only here: the GPU must have been chosen

    from .training import train_run

    torch.set_num_threads(1)
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    if gpu and not torch.cuda.is_available():  # on the CPU it would take hours
        raise RuntimeError(
            f"GPU {gpu}: not usable in a worker; an MPS daemon must see all GPUs, and so must this command"
        )
    return train_run(run, data, torch.device("cuda" if gpu else "cpu"))
