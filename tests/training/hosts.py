"""JAX's trainings in several processes, which meet as those of several hosts do."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from cce_minus.recsys import ConfigError, DataError, TrainConfig
from cce_minus.recsys.run.events import Event

from tests.training.commands import train_arguments

COMMAND = """
from cce_minus.jax_impl import processes
from cce_minus.jax_impl.cli import main
processes.SILENCE, processes.MEETING = {silence}, {meeting}
main()
"""


def by_address(port: int, index: int, number: int) -> dict[str, str]:
    """JAX's own variables."""
    return {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": str(number),
        "JAX_PROCESS_ID": str(index),
    }


def by_slurm(port: int, index: int, number: int) -> dict[str, str]:
    """Those of a job step."""
    return {
        "JAX_COORDINATOR_PORT": str(port), "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": str(number), "SLURM_NTASKS": str(number), "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    """Of a process with so many devices, whose programs compile fast."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def commands(
    config: TrainConfig, number: int, *, started: Any = by_address, silence: int = 45, meeting: int = 300
) -> list[subprocess.Popen[str]]:
    """The processes of a training by its command, a device each."""
    port, code = free_port(), COMMAND.format(silence=silence, meeting=meeting)
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *train_arguments(config)],
            env=environment(1) | started(port, index, number), stderr=subprocess.PIPE, text=True,
        )
        for index in range(number)
    ]  # fmt: skip


def results_of(folder: Path, configs: Sequence[Sequence[TrainConfig]], devices: int) -> list[list[dict[str, Any]]]:
    """What each process with so many devices finds of its ``configs``, one training after the other; `main` says
    what."""
    port, number = free_port(), len(configs)
    running = []
    for index, own in enumerate(configs):
        texts = folder / f"process-{index}-of-{number}.json"
        texts.write_text(json.dumps([config.to_json() for config in own]))
        started = by_address(port, index, number) if number > 1 else {}
        command = [sys.executable, "-m", "tests.training.hosts", str(texts)]
        where, env = Path(__file__).parents[2], environment(devices) | started
        running.append((texts, subprocess.Popen(command, cwd=where, env=env, stderr=subprocess.PIPE, text=True)))
    told = [process.communicate(timeout=300)[1] for _, process in running]
    assert not any(process.returncode for _, process in running), "\n".join(each[-3000:] for each in told)
    return [json.loads(texts.read_text()) for texts, _ in running]


def main(texts: Path) -> None:
    """Trains by the configurations in ``texts``, small pieces of tables at once, and writes there of each its result,
    whether this process told of it, and the events that it was told; or what it refused."""
    from cce_minus.jax_impl.train import train

    logs, found = list[str](), list[dict[str, Any]]()
    handler = logging.Handler()
    handler.emit = lambda record: logs.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("cce_minus").addHandler(handler)
    logging.getLogger("cce_minus").setLevel(logging.INFO)
    with mock.patch("cce_minus.recsys.run.tensor_file.PIECE", 1000):
        for text in json.loads(texts.read_text()):
            events, first = list[Event](), len(logs)
            try:
                result = train(TrainConfig.from_json(text), callbacks=[events.append])
            except (ConfigError, DataError) as error:
                found.append({"error": str(error)})
            else:
                tells = any("epoch 1" in each for each in logs[first:])
                found.append({"losses": result.losses, "test": result.test, "tells": tells, "events": len(events)})
    texts.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
