"""A run on a large catalog from end to end, by the commands that users have: trained, killed, resumed, evaluated,
recommended from, exported; seconds, memory and disk of each."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..runs.commands import arguments
from .planted import EVENTS, write_planted

Options = dict[str, object]
Row = dict[str, object]

OPTIONS: Options = {
    "dim": 64, "max_length": EVENTS, "batch_size": 512, "num_negatives": 1024, "precision": "bf16", "dropout": 0.1,
    "item_optimizer": "rowwise-adagrad", "item_learning_rate": 0.05, "table_dtype": "bf16", "learning_rate": 1e-3,
    "warmup_steps": 100, "epochs": 4, "test_users": 1000, "seed": 1,
}  # fmt: skip

_TICK = 0.2  # seconds between two looks at a running command


class RunError(Exception):
    """A command that ended otherwise than it should have."""


def whole_run(
    framework: str, items: int, options: Options, say: Callable[[str], object], **sizes: int
) -> Iterator[Row]:
    """A row a command, on a log of ``items`` and ``sizes`` of `write_planted` made first; what is written is removed in
    the end."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        began = time.perf_counter()
        options = OPTIONS | options | write_planted(folder, items, **sizes)
        yield {"part": "data", "seconds": time.perf_counter() - began, "disk_gib": _size(folder) / 2**30}
        out = folder / "run"

        def run(*command: str, until: Callable[[], bool] | None = None) -> Row:
            row = _run(framework, command, folder, until)
            say(f"{framework} {command[0]}: {row}")
            return row

        train = "train", *arguments({**options, "out": str(out)})
        checkpoint = out / f"{framework}-checkpoints" / "last.safetensors"
        yield {"part": "train, killed", **run(*train, until=checkpoint.exists)}
        resumed = run(*train, "--resume")
        result = json.loads((out / "result.json").read_text())
        yield {"part": "resume", **resumed, "ndcg@10": result["test"]["ndcg@10"]}
        evaluated = run("evaluate", "--run", str(out))
        yield {"part": "evaluate", **evaluated, "ndcg@10": float(_told(evaluated["output"])["ndcg@10"])}
        users = [text for user in range(10) for text in ("--user", str(user))]
        yield {"part": "recommend", **run("recommend", "--run", str(out), *users)}
        yield {"part": "export", **run("export", "--run", str(out), "--to", str(folder / "to"))}


def _told(output: object) -> dict[str, str]:
    """The metrics that a command printed, by name."""
    return {words[0]: words[1] for line in str(output).splitlines() if len(words := line.split()) > 1}


def _run(framework: str, command: Sequence[str], folder: Path, until: Callable[[], bool] | None) -> Row:
    """Runs a command to its end, or kills it once ``until()``: seconds, what it took at most of the host's memory and
    of the GPU's, how much the ``folder`` holds at most, and the command's output."""
    program = Path(sysconfig.get_path("scripts")) / f"cce-minus-{framework}"
    expected, gpu, disk = 0 if until is None else -signal.SIGKILL, 0.0, 0
    with (folder / "output").open("w") as output, (folder / "errors").open("w") as errors:
        began = time.perf_counter()
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}  # what is used, not what is reserved
        process = subprocess.Popen([str(program), *command], stdout=output, stderr=errors, env=environment)
        while not (found := os.wait4(process.pid, os.WNOHANG))[0]:
            if until is not None and until():
                os.kill(process.pid, signal.SIGKILL)
                until = None
            gpu, disk = max(gpu, _of_gpu()), max(disk, _size(folder))
            time.sleep(_TICK)
        seconds = time.perf_counter() - began
    _, status, usage = found
    process.returncode = os.waitstatus_to_exitcode(status)
    told, complaint = ((folder / name).read_text() for name in ("output", "errors"))
    if process.returncode != expected:
        raise RunError(f"{command[0]}: ended with {process.returncode}: {complaint.strip()[-2000:]}")
    sizes = {"host_gib": usage.ru_maxrss / 2**20, "gpu_gib": gpu, "disk_gib": disk / 2**30}
    return {"seconds": seconds, **sizes, "output": told}


def _of_gpu() -> float:
    """GiB of the first GPU's memory that are taken; 0 without one."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) / 2**10


def _size(folder: Path) -> int:
    """Bytes of its files, as far as they are there."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
