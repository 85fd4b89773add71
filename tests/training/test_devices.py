"""A training that several processes share is that of one: the same batches, and by exact losses the same steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.jax_impl.train import train as train_in_jax
from cce_minus.recsys import ConfigError, TrainConfig, read_metrics_log
from cce_minus.torch_impl.train import train
from safetensors.numpy import load_file

from tests.training.commands import call

Make = Callable[..., TrainConfig]
EXACT: dict[str, Any] = {"negatives": "all", "dropout": 0.0}
ALIKE = {
    "grouped": {},
    "in one length": {"group_by_length": False},
    "uneven parts": {"batch_size": 7, "accumulate": 3, "group_by_length": False},
    "clipped, averaged": {"clip_norm": 0.05, "ema_decay": 0.9, "data_on": "host"},
    "masked": {"model": "bert4rec", "optimizer": "adam"},
}


def results_of(framework: str, *configs: TrainConfig) -> list[dict[str, Any]]:
    """What the trainings, one after the other, write as their result; JAX's in a process of two devices."""
    if framework == "torch":
        for config in configs:
            train(config)
    else:
        code = f"""
from cce_minus.recsys import TrainConfig
from cce_minus.jax_impl.train import train
for text in {[config.to_json() for config in configs]!r}:
    train(TrainConfig.from_json(text))
"""
        flags = "--xla_force_host_platform_device_count=2"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((Path(config.out) / "result.json").read_text()) for config in configs]


@pytest.mark.parametrize("options", ALIKE.values(), ids=ALIKE)
def test_two_take_the_steps_of_one(framework: str, make_config: Make, options: dict[str, Any]):
    configs = [make_config(f"of-{devices}", devices=devices, **EXACT, **options) for devices in (1, 2)]
    one, two = results_of(framework, *configs)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=2e-5)
    first, second = (load_file(Path(config.out) / "best.safetensors") for config in configs)
    for name, weight in first.items():
        np.testing.assert_allclose(second[name], weight, atol=3e-4, err_msg=name)


def test_a_run_of_jax_goes_on_with_another_number(make_config: Make):
    config = make_config(devices=2, epochs=1)
    results_of("jax", config, replace(config, devices=1, epochs=2, resume=True))
    last = results_of("jax", replace(config, devices=2, epochs=3, resume=True))[0]
    assert len(last["losses"]) == 3
    assert np.isfinite(last["losses"]).all()


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
    train(replace(shared, devices=1, epochs=3, resume=True))
    train(replace(shared, devices=3, epochs=4, resume=True))
    assert len(read_metrics_log(out / "metrics.csv")) == 4


def test_processes_of_torchrun_are_the_same(shared: TrainConfig, tmp_path: Path):
    arguments = ["--config", str(Path(shared.out) / "config.json"), "--devices", "1", "--out", str(tmp_path / "other")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "cce_minus.torch_impl.train", "train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("epoch 1 ") == 1, "one process tells"
    for name in ("best.safetensors", "catalog.parquet"):
        assert (tmp_path / "other" / name).read_bytes() == (Path(shared.out) / name).read_bytes()


def test_a_killed_process_ends_the_others_and_is_named(make_config: Make):
    config = make_config(devices=2, epochs=10**6, patience=10**6)
    code = f"""
import os, signal, threading, time
from pathlib import Path
from cce_minus.recsys import RankError, TrainConfig
from cce_minus.torch_impl.train import train

def kill():
    log = Path({str(Path(config.out) / "metrics.csv")!r})
    while not log.exists() or log.read_text().count(chr(10)) < 2:
        time.sleep(0.05)
    tasks = Path("/proc/self/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    trains = [pid for pid in children if b"spawn_main" in Path(f"/proc/{{pid}}/cmdline").read_bytes()]
    os.kill(trains[1], signal.SIGKILL)

if __name__ == "__main__":
    threading.Thread(target=kill, daemon=True).start()
    try:
        train(TrainConfig.from_json({config.to_json()!r}))
    except RankError as error:
        print(error)
"""
    script = Path(config.out).parent / "killed.py"
    script.write_text(code)
    began = time.monotonic()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=150, check=False)
    assert "devices: expected 2 processes that end together, got rank 1" in done.stdout, done.stderr[-2000:]
    assert "SIGKILL" in done.stdout
    assert time.monotonic() - began < 60
    resumed = train(
        replace(config, devices=1, resume=True, epochs=len(read_metrics_log(Path(config.out) / "metrics.csv")))
    )
    assert np.isfinite(resumed.losses).all()


def test_errors(make_config: Make, tmp_path: Path):
    (tmp_path / "file").write_text("")
    of_rows = make_config(devices=2, item_optimizer="rowwise-adagrad", num_negatives=1)
    for config, message in (
        (of_rows, "^devices: expected 1 with an item_optimizer"),
        (make_config(devices=2, init_weights=str(tmp_path / "none")), "none: expected a safetensors file"),
        (make_config("file", devices=2), "^out: expected a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(config)
        assert not Path(config.out).is_dir()
    with pytest.raises(ConfigError, match=r"^devices: expected at most 1, those of this host, got 2"):
        train_in_jax(make_config(devices=2))
    with pytest.raises(ConfigError, match=r"^devices: expected 1 with an item_optimizer"):
        train_in_jax(of_rows)
    with pytest.raises(ConfigError, match=r"^devices: expected a number from 1 up, got 0"):
        make_config(devices=0)
