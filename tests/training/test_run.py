"""A whole run: it learns, leaves the promised files, resumes to the same result, and never overwrites another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import ConfigError, PopularityBaseline, TrainConfig, prepare_data, read_metrics_log
from cce_minus.recsys.run.checkpoint_file import read_checkpoint
from safetensors.numpy import load_file

from tests.training.commands import call

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]


def assert_same_run(got: Path, expected: Path) -> None:
    """Same numbers and same best weights, bit for bit; only times and places may differ."""
    results = [json.loads((path / "result.json").read_text()) for path in (got, expected)]
    for key in ("test", "valid", "best_epoch", "losses"):
        assert results[0][key] == results[1][key], key
    logs = [read_metrics_log(path / "metrics.csv") for path in (got, expected)]
    assert [{**row, "seconds": 0} for row in logs[0]] == [{**row, "seconds": 0} for row in logs[1]]
    weights = [load_file(path / "best.safetensors") for path in (got, expected)]
    for name, tensor in weights[1].items():
        np.testing.assert_array_equal(weights[0][name], tensor, err_msg=name)


def test_training_learns_and_leaves_its_files(train: Train, framework: str, make_config: Make):
    config = make_config(epochs=12, patience=12)
    result = train(config)
    assert result.losses[-1] < result.losses[0] - 1
    assert result.test["ndcg@10"] > 0.5  # chance is about 0.11
    names = {f"{name}@10" for name in ("ndcg", "hr", "mrr", "recall", "map", "coverage", "surprisal")}
    assert set(result.test) == set(result.valid) == names
    out = Path(config.out)
    assert TrainConfig.from_json((out / "config.json").read_text()) == config
    log = read_metrics_log(out / "metrics.csv")
    assert [row["epoch"] for row in log] == list(range(12))
    assert [row["step"] for row in log] == [4 * (epoch + 1) for epoch in range(12)]
    assert [row["train_loss"] for row in log] == pytest.approx(result.losses)
    best = max(log, key=lambda row: row["ndcg@10"])
    assert best["epoch"] == result.best_epoch
    assert best["ndcg@10"] == result.valid["ndcg@10"]
    written = json.loads((out / "result.json").read_text())
    split = prepare_data(config)[1]
    popularity = PopularityBaseline(split.train, split.num_items).metrics(split.test_target)
    assert (written["test"], written["popularity"]) == (result.test, popularity)
    files = ("config.json", "catalog.parquet", "data.json", "metrics.csv", "result.json", "learning_curve.png")
    assert {path.name for path in out.iterdir()} == {*files, "best.safetensors", f"{framework}-checkpoints"}
    assert [path.name for path in (out / f"{framework}-checkpoints").iterdir()] == ["last.safetensors"]


def test_resumed_run_equals_an_uninterrupted_one(train: Train, make_config: Make):
    train(make_config(out="whole", epochs=4))
    train(make_config(out="parts", epochs=2))
    train(make_config(out="parts", epochs=4, resume=True))
    assert_same_run(Path(make_config(out="parts").out), Path(make_config(out="whole").out))


def test_killed_run_resumes_to_the_same_result(train: Train, framework: str, make_config: Make):
    # A new estimate of frequencies starts from the training counts: one lost with its checkpoint shows in the losses.
    options: dict[str, Any] = {"negatives": "mixed", "frequency_rate": 0.2}
    killed = make_config(out="killed", epochs=4, **options)
    kill_after_epochs(3, framework, killed)
    # The rows and the weights of the second and third epoch are on disk, their checkpoint is not: both are trained
    # again.
    assert len(read_metrics_log(Path(killed.out) / "metrics.csv")) == 3
    _, progress = read_checkpoint(Path(killed.out) / f"{framework}-checkpoints" / "last.safetensors")
    assert progress.epochs == 1
    train(replace(killed, resume=True))
    whole = make_config(out="whole", epochs=4, **options)
    train(whole)
    assert_same_run(Path(killed.out), Path(whole.out))


def kill_after_epochs(epochs: int, framework: str, config: TrainConfig) -> None:
    """Trains in a process that is killed, without any chance to tidy up, as it logs its last epoch; the first is
    written so slowly that the others wait and are written as one."""
    script = f"""
import os, signal, sys, threading
from cce_minus.recsys import MetricsLog, TrainConfig
from cce_minus.recsys.run.background import Writer
from cce_minus.{framework}_impl.train import train

ended = threading.Event()

def submit_and_tell(self, item):
    submit(self, item)
    if item.progress.epochs == {epochs}:
        ended.set()

def append_and_die(self, *, epoch, **row):
    assert ended.wait(60)
    append(self, epoch=epoch, **row)
    if epoch == {epochs - 1}:
        os.kill(os.getpid(), signal.SIGKILL)

submit, Writer.submit = Writer.submit, submit_and_tell
append, MetricsLog.append = MetricsLog.append, append_and_die
train(TrainConfig.from_json(sys.argv[1]))
"""
    command = [sys.executable, "-c", script, config.to_json()]
    process = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=False, timeout=180)
    assert process.returncode == -signal.SIGKILL


def test_early_stopping_holds_after_resume(train: Train, make_config: Make):
    # A learning rate of almost nothing: the first validation stays the best one.
    config = make_config(epochs=9, patience=2, learning_rate=1e-30)
    result = train(config)
    assert (result.best_epoch, len(result.losses)) == (0, 3)
    resumed = train(replace(config, resume=True))
    assert resumed.losses == result.losses
    assert resumed.test == result.test


def test_eval_every_leaves_epochs_without_validation(train: Train, make_config: Make):
    config = make_config(epochs=5, eval_every=2)
    result = train(config)
    log = read_metrics_log(Path(config.out) / "metrics.csv")
    assert [row["epoch"] for row in log if "ndcg@10" in row] == [1, 3]
    assert result.best_epoch in (1, 3)
    assert len(result.losses) == 5


def test_initial_weights_are_loaded(train: Train, make_config: Make):
    first = train(make_config(out="first", epochs=4))
    second = train(make_config(out="second", epochs=1, init_weights=first.weights))
    assert second.losses[0] < first.losses[2] < first.losses[0]


def test_bf16_learns_too(train: Train, framework: str, make_config: Make):
    result = train(make_config(precision="bf16", epochs=6))
    assert result.losses[-1] < result.losses[0] - 0.5
    weights = load_file(result.weights)
    assert {tensor.dtype for tensor in weights.values()} == {np.dtype(np.float32)}
    evaluated = call(framework, "evaluate", "--run", Path(result.weights).parent, "--json")
    assert json.loads(evaluated.output) == result.test  # in the precision of the run


def test_callers_random_state_is_left_alone(make_config: Make):
    import torch
    from cce_minus.torch_impl.train import train

    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    train(make_config(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_unusable_folders_and_options_are_named(train: Train, framework: str, make_config: Make):
    config = make_config(epochs=1)
    with pytest.raises(ConfigError, match=f"resume: expected a {framework} run in .*, got none"):
        train(replace(config, resume=True))
    train(config)
    before = (Path(config.out) / "config.json").read_text()
    with pytest.raises(ConfigError, match=r"out: expected a folder without a run, got .*--resume"):
        train(replace(config, seed=1))
    with pytest.raises(ConfigError, match=r"dropout: expected 0\.1 as in the run to resume, got 0\.5"):
        train(replace(config, dropout=0.5, resume=True))
    assert (Path(config.out) / "config.json").read_text() == before
    with pytest.raises(ConfigError, match="eval_every: expected at most epochs = 1"):
        train(make_config(out="other", epochs=1, eval_every=2))
    with pytest.raises(ConfigError, match=r"missing\.safetensors: expected a safetensors file"):
        train(make_config(out="other", init_weights="missing.safetensors"))
    assert not Path(make_config(out="other").out).exists()


def test_the_other_frameworks_run_is_not_resumed(make_config: Make):
    from cce_minus.jax_impl.train import train as train_jax
    from cce_minus.torch_impl.train import train as train_torch

    config = make_config(epochs=1)
    train_torch(config)
    with pytest.raises(ConfigError, match="resume: expected a jax run in"):
        train_jax(replace(config, resume=True))
