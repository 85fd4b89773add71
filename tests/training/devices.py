"""Trainings on several devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.torch_impl.train import train


def results_of(framework: str, *configs: TrainConfig) -> list[dict[str, Any]]:
    """What the trainings, one after the other, write as their result; JAX's in a process with the most devices that any
    of them asks for, whose ``ConfigError`` is raised here."""
    if framework == "torch":
        for config in configs:
            train(config)
    else:
        code = f"""
import sys
from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.jax_impl.train import train
try:
    for text in {[config.to_json() for config in configs]!r}:
        train(TrainConfig.from_json(text))
except ConfigError as error:
    sys.exit(f"ConfigError {{error}}")
"""
        flags = f"--xla_force_host_platform_device_count={max(config.devices for config in configs)}"
        environment = os.environ | {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        kind, _, message = done.stderr.strip().rpartition("\n")[2].partition(" ")
        if kind == "ConfigError":
            raise ConfigError(message)
        assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((Path(config.out) / "result.json").read_text()) for config in configs]
