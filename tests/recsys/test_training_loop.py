"""The loop of a training, without a framework."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.run import recorder as recorder_module
from cce_minus.recsys.run.checkpoint_file import write_checkpoint
from cce_minus.recsys.run.profile import Profile
from cce_minus.recsys.run.progress import Progress, metric_names
from cce_minus.recsys.run.recorder import Recorder, Snapshot
from cce_minus.recsys.run.run_directory import RunDirectory
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.recsys.run.training_loop import run_epochs

POPULARITY: Future[dict[str, dict[str, float]]] = Future()
POPULARITY.set_result({"valid": {}, "test": {"ndcg@10": 0.25}})


class Training:
    """Epochs whose validation is better than the last one's up to the epoch ``best``."""

    def __init__(self, best: int) -> None:
        self.best, self.epoch = best, -1

    def compile_ahead(self) -> None:
        pass

    def train_epoch(self, epoch: int, profile: Profile) -> Callable[[], float]:
        self.epoch = epoch
        return lambda: 1.0

    def largest_weight(self) -> float:
        return 1.0

    def validate(self) -> Callable[[], dict[str, float]]:
        metrics = {f"{name}@10": 1 - abs(self.epoch - self.best) / 10 for name in ("ndcg", "hr")}
        return lambda: metrics

    def snapshot(self) -> Snapshot:
        epoch = self.epoch

        def write(path: Path) -> None:
            path.write_text(str(epoch))

        return Snapshot(write, lambda: {"epoch": Stored.of(np.array(epoch))})


def test_the_best_weights_are_tested_while_the_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    may_write = threading.Event()

    def held_up(*operands: Any) -> None:
        assert may_write.wait(10)
        write_checkpoint(*operands)

    monkeypatch.setattr(recorder_module, "write_checkpoint", held_up)
    run = RunDirectory(tmp_path, "torch")
    run.checkpoints.mkdir()
    config = TrainConfig(data="x", out=str(tmp_path), epochs=1, patience=6)
    recorder = Recorder(run, config, Progress(), 1, POPULARITY)

    def test() -> dict[str, float]:
        assert run.best_weights.read_text() == "0"
        assert not list(run.checkpoints.iterdir())
        may_write.set()
        return {"ndcg@10": 0.5}

    metrics = run_epochs(Training(0), config, recorder.progress, recorder, Profile(), test)
    assert metrics == {"ndcg@10": 0.5}
    assert len(list(run.checkpoints.iterdir())) == 1


def test_a_live_state_is_written_before_the_next_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Live(Training):
        """Its state is the number of the epoch that trains."""

        def train_epoch(self, epoch: int, profile: Profile) -> Callable[[], float]:
            self.began = getattr(self, "began", 0) + 1
            return super().train_epoch(epoch, profile)

        def snapshot(self) -> Snapshot:
            return Snapshot(
                lambda path: (time.sleep(0.05), path.write_text(str(self.epoch)))[0],
                lambda: {"epoch": Stored.of(np.array(self.epoch))},
                is_live=True,
            )

    written = []

    def slowly(run: RunDirectory, tensors: Any, progress: Progress) -> None:
        time.sleep(0.1)
        written.append((int(tensors["epoch"].array()), training.began, progress.epochs))
        write_checkpoint(run, tensors, progress)

    monkeypatch.setattr(recorder_module, "write_checkpoint", slowly)
    run, training = RunDirectory(tmp_path, "torch"), Live(3)
    run.checkpoints.mkdir()
    config = TrainConfig(data="x", out=str(tmp_path), epochs=3, patience=6)
    recorder = Recorder(run, config, Progress(), 1, POPULARITY)
    run_epochs(training, config, recorder.progress, recorder, Profile(), dict)
    assert written == [(0, 1, 1), (1, 2, 2), (2, 3, 3)]


def test_the_weights_that_are_tested_are_the_best_epochs(tmp_path: Path):
    run = RunDirectory(tmp_path, "torch")
    run.checkpoints.mkdir()
    config = TrainConfig(data="x", out=str(tmp_path), epochs=6, patience=6)
    recorder = Recorder(run, config, Progress(), 1, POPULARITY)

    def test() -> dict[str, float]:
        return {"epoch": int(run.best_weights.read_text())}

    tested = run_epochs(Training(3), config, recorder.progress, recorder, Profile(), test)
    assert tested == {"epoch": 3}
    assert json.loads(run.result.read_text())["popularity"] == {"ndcg@10": 0.25}
    told = recorder.result({"ndcg@10": 0.5})
    assert told.summary().splitlines()[1:] == ["popularity: ndcg@10 0.2500"]
    best_at_last = replace(told, best_epoch=5).summary().splitlines()
    assert best_at_last[2:] == ["the last epoch was the best: more --epochs may do better"]
    assert len(replace(told, best_epoch=5, valid={}).summary().splitlines()) == 2  # no epoch is better than another
    assert recorder.progress.epochs == 6


def test_an_epoch_is_told_in_a_narrow_line():
    progress = Progress()
    metrics = dict.fromkeys(metric_names((5, 10, 20)), 0.123456)
    progress.update(12.34567, metrics, 9876.54)
    assert progress.line(metrics) == "epoch 0  loss 12.3457  ndcg@10 0.1235  hr@10 0.1235  9876.5 s"
    assert progress.line({}) == "epoch 0  loss 12.3457  9876.5 s"
