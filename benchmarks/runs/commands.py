"""Training commands in processes of their own, as a user starts them, timed from the process's start to its end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from cce_minus.recsys import TrainConfig, read_metrics_log
from cce_minus.recsys.run.data_options import flag_of

from .cases import EMPTY, WARM, Options

CACHES = ("TRITON_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "CUDA_CACHE_PATH")
"""Variables that say where compiled kernels are kept from one process to the next."""

# As this process was started: what it sets for the parts that share a GPU between frameworks is not the user's. Python
# keeps what it compiles, as an installation has it: without, a start takes twice as long.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class CommandError(Exception):
    """A training command that ended with an error."""


def from_empty_caches(framework: str, options: Options, folder: Path) -> Iterator[dict[str, object]]:
    """The command with empty caches, and once more with those that it filled."""
    run_command(framework, {**options, "epochs": 1}, folder, folder / "others")  # has Python compile what it imports
    caches = folder / "caches"
    for method in (EMPTY, WARM):
        yield {"method": method, **run_command(framework, options, folder, caches)}


def with_warm_caches(framework: str, options: Options, folder: Path) -> dict[str, object]:
    """The command after one of an epoch, which fills the caches, Python's too."""
    caches = folder / "caches"
    run_command(framework, {**options, "epochs": 1}, folder, caches)
    return {"method": WARM, **run_command(framework, options, folder, caches)}


def run_command(framework: str, options: Options, folder: Path, caches: Path) -> dict[str, object]:
    """Trains and tests in a new process, with its caches in ``caches``; seconds and what the run's files tell.

    Raises ``CommandError`` with the end of its output.
    """
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    environment = {"PYTHONPYCACHEPREFIX": str(folder / "python"), **_ENVIRONMENT}
    environment |= {name: str(caches / name.lower()) for name in CACHES}
    program = Path(sysconfig.get_path("scripts")) / f"cce-minus-{framework}"
    began = time.perf_counter()
    done = subprocess.run(
        [str(program), "train", *arguments({**options, "out": str(out)})],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise CommandError(f"{framework}: the command ended with {done.returncode}: {done.stdout.strip()[-2000:]}")
    result = json.loads((out / "result.json").read_text())
    log = read_metrics_log(out / "metrics.csv")
    shutil.rmtree(out)
    return {
        "seconds": seconds,
        "epochs": len(log),
        "first_epoch_seconds": log[0]["seconds"],
        "training_seconds": log[-1]["seconds"],
        "test_ndcg@10": result["test"]["ndcg@10"],
    }


def arguments(options: Options) -> list[str]:
    """The command line of options of `TrainConfig`."""
    fields, line = {field.name: field for field in dataclasses.fields(TrainConfig)}, []
    for name, value in options.items():
        switch = f"--{'' if value else 'no-'}{name.replace('_', '-')}"
        line += [switch] if isinstance(value, bool) else [flag_of(fields[name]), str(value)]
    return line
