"""Epochs of the training commands: seconds of their steps, of whole epochs, and of the GPU's work in the steps."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from cce_minus.recsys import TrainConfig, num_batches, prepare_data, read_metrics_log

from .cases import Options
from .device_time import DeviceTrace, prepare

FIRST, LAST = 3, 6
"""The epochs that count, from 1: the first compiles, and what it sets off may last into the second."""

TRACED = 3


def measure_epoch(framework: str, options: Options) -> dict[str, object]:
    """`measure_steps`, with ``whole_seconds``: the median of epochs of a second training, with validation, checkpoint
    and the best weights."""
    steps = measure_steps(framework, options)
    with tempfile.TemporaryDirectory() as folder:
        _train(framework, options, Path(folder) / "run", epochs=LAST, eval_every=1)
        whole = epoch_seconds(Path(folder) / "run")
    return {**steps, "whole_seconds": whole}


def measure_steps(framework: str, options: Options) -> dict[str, object]:
    """Trains in this process without validation; ``seconds`` is the median of an epoch's steps, of which there are
    ``steps``, from the first batch's making to the last loss on the host."""
    steps = num_batches(prepare_data(TrainConfig(**options))[1].train, batch_size=options["batch_size"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with _watched(framework, None) as took:
            _train(framework, options, out, epochs=LAST + 1, eval_every=LAST + 1)
    return {"seconds": statistics.median(took[FIRST - 1 : LAST]), "steps": steps}


def measure_gpu(framework: str, options: Options) -> float | None:
    """Seconds that the GPU is busy in the steps of the epoch `TRACED`; None where nothing could be recorded.

    For a process of its own: what records slows down a program, and its times would not be a user's.
    """
    prepare()
    trace = DeviceTrace()
    with tempfile.TemporaryDirectory() as folder, _watched(framework, trace):
        _train(framework, options, Path(folder) / "run", epochs=TRACED + 1, eval_every=TRACED + 1)
    return trace.seconds


def epoch_seconds(run: Path) -> float:
    """The median of the epochs that count in the log of the folder ``run``."""
    ends = [row["seconds"] for row in read_metrics_log(run / "metrics.csv")]
    took = [after - before for before, after in itertools.pairwise(ends)]  # of the second epoch and on
    return statistics.median(took[FIRST - 2 : LAST - 1])


def _train(framework: str, options: Options, out: Path, *, epochs: int, eval_every: int) -> None:
    own: Options = {"epochs": epochs, "patience": epochs, "eval_every": eval_every, "out": str(out)}
    importlib.import_module(f"cce_minus.{framework}_impl.train").train(TrainConfig(**{**options, **own}))


@contextlib.contextmanager
def _watched(framework: str, trace: DeviceTrace | None) -> Iterator[list[float]]:
    """Collects the seconds of each epoch's steps, and records the GPU in those of the epoch `TRACED`."""
    took: list[float] = []
    trainer = importlib.import_module(f"cce_minus.{framework}_impl.training.trainer").Trainer
    train_epoch = trainer.train_epoch

    def timed(self: Any, epoch: int, *arguments: Any) -> Callable[[], float]:
        if trace is not None and epoch == TRACED - 1:
            trace.start()
        began = time.perf_counter()
        loss = train_epoch(self, epoch, *arguments)()
        took.append(time.perf_counter() - began)
        if trace is not None and epoch == TRACED - 1:
            trace.stop()
        return lambda: loss

    with mock.patch.object(trainer, "train_epoch", timed):
        yield took
