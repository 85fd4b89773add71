"""A training that several processes share is that of one: the same batches, and by exact losses the same steps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.jax_impl.ranks import seeds_of_ranks
from cce_minus.jax_impl.train import train as train_in_jax
from cce_minus.recsys import ConfigError, DivergedError, TrainConfig, prepare_data, read_metrics_log
from cce_minus.recsys.run.experiment import weighing_targets
from cce_minus.torch_impl.train import train
from safetensors.numpy import load_file

from tests.training.commands import call
from tests.training.devices import results_of

Make = Callable[..., TrainConfig]
EXACT: dict[str, Any] = {"negatives": "all", "dropout": 0.0, "learning_rate": 0.1, "optimizer": "sgd"}
"""By this optimizer weights tell the scale of gradients."""

ALIKE: dict[str, dict[str, Any]] = {
    "grouped": {},
    "uneven parts": {"batch_size": 7, "accumulate": 3, "group_by_length": False},
    "clipped, averaged": {"clip_norm": 0.05, "ema_decay": 0.9, "data_on": "host", "batch_size": 5},
    "masked": {"model": "bert4rec", "optimizer": "adam", "learning_rate": 1e-3},
}


@pytest.fixture
def make(make_config: Make, long_tailed: Path) -> Make:
    return lambda out="run", **changes: make_config(out, **{"data": str(long_tailed), "max_length": 30, **changes})


@pytest.mark.parametrize("options", ALIKE.values(), ids=ALIKE)
def test_two_take_the_steps_of_one(framework: str, make: Make, options: dict[str, Any]):
    configs = [make(f"of-{devices}", devices=devices, **(EXACT | options)) for devices in (1, 2)]
    assert weighing_targets(configs[0], prepare_data(configs[0])[1]) is not None or options
    assert_alike(configs, *results_of(framework, *configs), atol=1e-5 if "optimizer" not in options else 3e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("options", ALIKE.values(), ids=ALIKE)
def test_two_gpus_take_the_steps_of_one(framework: str, make: Make, options: dict[str, Any]):
    configs = [make(f"of-{devices}", devices=devices, device="auto", **(EXACT | options)) for devices in (1, 2)]
    assert_alike(configs, *results_of(framework, *configs), atol=1e-3)


def assert_alike(configs: list[TrainConfig], one: dict[str, Any], two: dict[str, Any], *, atol: float) -> None:
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=max(2e-5, atol))
    assert two["test"] == pytest.approx(one["test"], abs=0.02)
    first, second = (load_file(Path(config.out) / "best.safetensors") for config in configs)
    for name, weight in first.items():
        np.testing.assert_allclose(second[name], weight, atol=atol, err_msg=name)


def test_frequencies_are_of_all_targets(framework: str, make: Make):
    options = {"negatives": "in-batch", "frequency_rate": 0.3, "epochs": 1, "dropout": 0.0}
    configs = [make(f"of-{devices}", devices=devices, **options) for devices in (1, 2)]
    results_of(framework, *configs)
    one, two = (
        load_file(Path(config.out) / f"{framework}-checkpoints" / "last.safetensors")["frequencies"]
        for config in configs
    )
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_a_resumed_run_is_an_uninterrupted_one_and_goes_on_with_another_number(framework: str, make: Make):
    whole, parts = make("whole", devices=2, epochs=2), make("parts", devices=2, epochs=1)
    goes_on = [replace(parts, epochs=2, resume=True), replace(parts, devices=1, epochs=3, resume=True)]
    uninterrupted, _, resumed = results_of(framework, whole, parts, goes_on[0])
    assert resumed["losses"] == uninterrupted["losses"]
    assert resumed["test"] == uninterrupted["test"]
    assert len(results_of(framework, goes_on[1])[0]["losses"]) == 3


def test_each_has_draws_of_its_own():
    assert len(np.unique(seeds_of_ranks(np.arange(5, dtype=np.uint64), 3))) == 15


@pytest.fixture
def shared(make_config: Make) -> TrainConfig:
    """A run of two processes, whose draws are of each one's own."""
    config = make_config("shared", devices=2, epochs=2, split="global-temporal", metrics_at="5,10")
    train(config)
    return config


def test_metrics_are_those_of_one_process_and_a_run_goes_on_with_another_number(shared: TrainConfig):
    out = Path(shared.out)
    result = json.loads((out / "result.json").read_text())
    measured = call("torch", "evaluate", "--run", out, "--json")
    assert json.loads(measured.output) == result["test"]
    assert len(read_metrics_log(out / "metrics.csv")) == 2
    train(replace(shared, devices=3, epochs=3, resume=True))
    assert len(read_metrics_log(out / "metrics.csv")) == 3


def test_processes_of_torchrun_are_the_same(shared: TrainConfig, tmp_path: Path):
    arguments = ["--config", str(Path(shared.out) / "config.json"), "--devices", "1", "--out", str(tmp_path / "other")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "cce_minus.torch_impl.train", "train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("epoch 1 ") == 1, "one process tells"
    for name in ("best.safetensors", "catalog.parquet"):
        assert (tmp_path / "other" / name).read_bytes() == (Path(shared.out) / name).read_bytes()


def test_what_epochs_left_is_written_where_a_later_one_diverges(make_config: Make):
    """By the first process, before the others, which have nothing to write, end all."""
    before = signal.getsignal(signal.SIGINT)
    config = make_config(devices=2, optimizer="sgd", learning_rate=1e7, warmup_steps=10**6, epochs=9, negatives="all")
    with pytest.raises(DivergedError, match="epoch"):
        train(config)
    alone = replace(config, devices=1, out=str(Path(config.out).parent / "alone"))
    with pytest.raises(DivergedError):
        train(alone)
    written = [len(read_metrics_log(Path(each.out) / "metrics.csv")) for each in (config, alone)]
    assert written[0] == written[1] >= 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_script_that_starts_again_is_told_why(make_config: Make):
    config = make_config(devices=2)
    script = Path(config.out).parent / "script.py"
    script.write_text(f"""
from cce_minus.recsys import TrainConfig
from cce_minus.torch_impl.train import train
train(TrainConfig.from_json({config.to_json()!r}))
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=150, check=False)
    assert 'ended by exit code 1; a script that trains needs if __name__ == "__main__":' in done.stderr


def test_errors(make_config: Make, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for config, message in (
        (make_config(devices=2, init_weights=str(tmp_path / "none")), "none: expected a safetensors file"),
        (make_config("file", devices=2), "^out: expected a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(config)
        assert not Path(config.out).is_dir()
    with pytest.raises(ConfigError, match=r"^devices: expected at most 1, those of this host, got 2"):
        train_in_jax(make_config(devices=2))
    with pytest.raises(ConfigError, match=r"^devices: expected a number from 1 up, got 0"):
        make_config(devices=0)
