"""Epochs of the training commands: seconds of their steps, of whole epochs, and of the GPU's work in the steps."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from cce_minus.recsys import TrainConfig, num_batches, prepare_data, read_metrics_log
from cce_minus.recsys.run.recorder import Recorder

from ..study.epoch_time import train_with
from .cases import Options
from .device_time import DeviceTrace, prepare

FIRST, LAST = 3, 6
"""The epochs that count, from 1: the first compiles, and what it sets off may last into the second."""

TRACED = LAST + 1  # on its own, as recording it takes time


def measure_epoch(framework: str, options: Options) -> dict[str, object]:
    """`measure_steps`, with ``gpu_seconds``, what the GPU is busy in an epoch's steps, and ``whole_seconds``, the median
    of epochs of a second training, with validation, checkpoint and the best weights."""
    prepare()
    trace = DeviceTrace()
    with _traced(trace, TRACED):
        steps = measure_steps(framework, options)
    with tempfile.TemporaryDirectory() as folder:
        _train(framework, options, Path(folder) / "run", epochs=LAST, eval_every=1)
        whole = epoch_seconds(Path(folder) / "run")
    return {**steps, "gpu_seconds": trace.seconds, "whole_seconds": whole}


def measure_steps(framework: str, options: Options) -> dict[str, object]:
    """Trains in this process without validation; ``seconds`` is the median of an epoch's steps, of which there are
    ``steps``.

    They are those of the run's own clock where it keeps one (``timed_by`` is profile), else those of whole epochs, which
    hold a checkpoint (log).
    """
    steps = num_batches(prepare_data(TrainConfig(**options))[1].train, batch_size=options["batch_size"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        _train(framework, options, out, epochs=TRACED + 1, eval_every=TRACED + 1)
        seconds, timed_by = epoch_seconds(out), "log"
        if (own := profiled_seconds(out, steps)) is not None:
            seconds, timed_by = own, "profile"
    return {"seconds": seconds, "steps": steps, "timed_by": timed_by}


def epoch_seconds(run: Path) -> float:
    """The median of the epochs that count in the log of the folder ``run``."""
    ends = [row["seconds"] for row in read_metrics_log(run / "metrics.csv")]
    took = [after - before for before, after in itertools.pairwise(ends)]  # of the second epoch and on
    return statistics.median(took[FIRST - 2 : LAST - 1])


def profiled_seconds(run: Path, steps: int) -> float | None:
    """Seconds of ``steps`` steps by the profile that a run keeps; None where it keeps none."""
    path = run / "profile.json"
    if not path.exists():
        return None
    parts = {part["name"]: part for part in json.loads(path.read_text())["parts"]}
    found = parts.get("steps")
    return steps * found["seconds"] / found["count"] if found and found["count"] else None


def _train(framework: str, options: Options, out: Path, *, epochs: int, eval_every: int) -> None:
    own: Options = {"epochs": epochs, "patience": epochs, "eval_every": eval_every, "out": str(out)}
    if "profile" in {field.name for field in dataclasses.fields(TrainConfig)}:
        own["profile"] = True
    train_with(framework, TrainConfig(**{**options, **own}))


@contextlib.contextmanager
def _traced(trace: DeviceTrace, epoch: int) -> Iterator[None]:
    """Records the GPU from the end of the epoch before ``epoch``, which counts from 1, to its own."""
    end_epoch = Recorder.end_epoch

    def ended(recorder: Recorder, *arguments: Any, **named: Any) -> None:
        ending = recorder.progress.epochs + 1
        if ending == epoch:
            trace.stop()
        end_epoch(recorder, *arguments, **named)
        if ending == epoch - 1:
            trace.start()

    with mock.patch.object(Recorder, "end_epoch", ended):
        yield
