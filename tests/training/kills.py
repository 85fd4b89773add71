"""Kills trainings at random moments and resumes them: ``python -m tests.training.kills --framework torch --kills 8``.

Every third kill waits for a file that is being written. A resumed run must end with the bytes of a whole one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.run.checkpoint_file import NAME

_RUN = """
import sys
from cce_minus.recsys import TrainConfig
from cce_minus.{}_impl.train import train
train(TrainConfig.from_json(sys.argv[1]))
"""


def write_events(path: Path, users: int, items: int, length: int = 12) -> None:
    """Random walks: with a large catalog, writing a state takes a while."""
    rng = np.random.default_rng(0)
    columns = {
        "user_id": np.repeat(np.arange(users), length),
        "item_id": np.concatenate([np.arange(items), rng.integers(0, items, users * length - items)]),
        "timestamp": np.tile(np.arange(length), users),
    }
    pq.write_table(pa.table(columns), path)


def start(framework: str, config: TrainConfig) -> subprocess.Popen[bytes]:
    """A process that trains."""
    command = [sys.executable, "-c", _RUN.format(framework), config.to_json()]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def kill_at(process: subprocess.Popen[bytes], folder: Path, seconds: float, *, writing: bool) -> str:
    """Kills after ``seconds``, and if ``writing`` as soon after them as a file is being written; says when."""
    time.sleep(seconds)
    while writing and process.poll() is None and not list(folder.rglob(".*.safetensors.*.tmp")):
        time.sleep(0.0005)
    being_written = sorted(path.name.split(".tmp")[0] for path in folder.rglob(".*.safetensors.*.tmp"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return f"after {seconds:.2f} s" + (f", writing {being_written[0]}" if being_written else "")


def left_of(out: Path, framework: str) -> tuple[bytes, bytes, str]:
    """The best weights and the state that a run has ended with, and its log without times."""
    log = (out / "metrics.csv").read_text().splitlines()
    rows = "\n".join(line.rpartition(",")[0] for line in log)
    return (out / "best.safetensors").read_bytes(), _state(out / f"{framework}-checkpoints" / NAME), rows


def _state(path: Path) -> bytes:
    """What follows the header, which holds times."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--framework", choices=("torch", "jax"), default="torch")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(folder / "events.parquet", options.items // 10, options.items)
        whole = TrainConfig(
            data=str(folder / "events.parquet"), out=str(folder / "whole"), device=options.device, max_length=12,
            dim=64, batch_size=64, epochs=options.epochs, patience=options.epochs, num_negatives=64, deterministic=True,
        )  # fmt: skip
        began = time.monotonic()
        assert start(options.framework, whole).wait() == 0, "the whole run failed"
        took = time.monotonic() - began
        expected = left_of(folder / "whole", options.framework)
        for number in range(options.kills):
            config = replace(whole, out=str(folder / f"run{number}"))
            out = Path(config.out)
            process = start(options.framework, config)
            when = kill_at(process, out, moments.uniform(0, took * 0.9), writing=number % 3 == 2)
            resume = (out / "config.json").exists()
            epochs = (
                max((out / "metrics.csv").read_bytes().count(b"\n") - 1, 0) if (out / "metrics.csv").exists() else 0
            )
            ended = start(options.framework, replace(config, resume=resume)).wait()
            same = ended == 0 and left_of(out, options.framework) == expected
            print(
                f"{options.framework} killed {when}, {epochs} epochs logged: {'same' if same else 'DIFFERENT'}",
                flush=True,
            )
            if not same:
                sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    main()
