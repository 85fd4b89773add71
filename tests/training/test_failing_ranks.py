"""Ranks of a training that are killed, stop or are started again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import TrainConfig, read_metrics_log
from cce_minus.torch_impl.train import train

Make = Callable[..., TrainConfig]


def script_of(config: TrainConfig, signal_name: str) -> Path:
    """A script of which rank 1 sends itself a signal after an epoch, unless it has been started again."""
    script = Path(config.out).parent / "ends.py"
    script.write_text(f"""
import os, signal, threading, time
from pathlib import Path
from cce_minus.recsys import RankError, TrainConfig
from cce_minus.torch_impl import heartbeat
from cce_minus.torch_impl.train import train

heartbeat.SILENCE = 8.0

def end():
    last = Path({config.out!r}) / "torch-checkpoints" / "last.safetensors"
    while not last.exists():
        time.sleep(0.01)
    last_rank = str(int(os.environ.get("WORLD_SIZE", 0)) - 1)
    if os.environ.get("RANK") == last_rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.{signal_name})

threading.Thread(target=end, daemon=True).start()
if __name__ == "__main__":
    try:
        train(TrainConfig.from_json({config.to_json()!r}))
    except RankError as error:
        print(error)
""")
    return script


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGSTOP"])
def test_a_process_that_ends_or_stops_ends_the_others_and_is_named(make_config: Make, signal_name: str):
    config = make_config(devices=2, epochs=10**6, patience=10**6)
    began = time.monotonic()
    command = [sys.executable, script_of(config, signal_name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    message = "devices: expected 2 processes that end together, got rank 1"
    assert message in done.stdout, done.stderr[-2000:]
    assert "ended by Signal 9" in done.stdout
    assert ("got rank 1 silent for 8 s" in done.stderr) == (signal_name == "SIGSTOP")
    assert time.monotonic() - began < 60
    epochs = len(read_metrics_log(Path(config.out) / "metrics.csv"))
    assert np.isfinite(train(replace(config, devices=1, resume=True, epochs=epochs)).losses).all()


def torchrun(number: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Which starts the processes again once."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "1"]
    every = [*launcher, "--nproc-per-node", str(number), *command]
    return subprocess.run(every, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize(
    ("signal_name", "item_optimizer", "number"),
    [("SIGKILL", "rowwise-adagrad", 2), ("SIGSTOP", "auto", 2), ("SIGKILL", "auto", 1)],
)
def test_processes_that_torchrun_starts_again_go_on(
    make_config: Make, signal_name: str, item_optimizer: str, number: int
):
    options = {"item_optimizer": item_optimizer, "num_negatives": 8, "group_size": 128, "epochs": 60, "patience": 60}
    config = make_config(**options)
    done = torchrun(number, script_of(config, signal_name))
    assert done.returncode == 0, done.stderr[-3000:]
    whole = make_config("whole", devices=number, **options)
    train(whole)
    results = [json.loads((Path(each.out) / "result.json").read_text()) for each in (config, whole)]
    # sums of as many threads as there are
    np.testing.assert_allclose(results[0]["losses"], results[1]["losses"], rtol=1e-3 if number == 1 else 0)
    assert results[0]["test"] == pytest.approx(results[1]["test"], abs=0.1 if number == 1 else 0)


def test_another_run_is_not_gone_on_with(make_config: Make):
    config = make_config(epochs=1)
    train(config)
    before = {path: path.read_bytes() for path in Path(config.out).rglob("*") if path.is_file()}
    done = torchrun(2, script_of(replace(config, epochs=2), "SIGKILL"))
    assert done.returncode != 0
    assert "out: expected a folder without a run" in done.stderr
    assert {path: path.read_bytes() for path in Path(config.out).rglob("*") if path.is_file()} == before
