"""The commands that serve a run, called in this process."""

from __future__ import annotations

import importlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.run.data_options import flag_of
from typer.testing import CliRunner

FRAMEWORKS = ("torch", "jax")


SMALL: dict[str, Any] = {
    "max_length": 12, "dim": 16, "dropout": 0.1, "negatives": "all", "batch_size": 16, "learning_rate": 1e-2,
    "warmup_steps": 5, "epochs": 2, "device": "cpu",
}  # fmt: skip
"""Options of a recommender."""


def config_of(out: Path) -> TrainConfig:
    return TrainConfig(
        data="events.parquet", titles="titles.parquet", max_length=12, dim=16, dropout=0.1,
        negatives="all",
        batch_size=16, learning_rate=1e-2, warmup_steps=5, epochs=3, device="cpu", out=str(out),
    )  # fmt: skip


def call(framework: str, *arguments: Any):
    app = importlib.import_module(f"cce_minus.{framework}_impl.cli").app
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def recommend(framework: str, run: Path, output: Path, *arguments: Any) -> list[dict[str, Any]]:
    result = call(framework, "recommend", "--run", run, "--output", output, *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(output.read_text()) if output.suffix == ".json" else pq.read_table(output).to_pylist()


def error_of(result: Any, status: int = 2) -> str:
    """The one line that a command ended with."""
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return line


def train_arguments(config: TrainConfig) -> list[str]:
    """The command line of a run."""
    defaults = vars(TrainConfig())
    changed = {name: value for name, value in vars(config).items() if value != defaults[name]}
    flags = {flag_of(field): changed[field.name] for field in fields(config) if field.name in changed}
    return ["train", *(flag if value is True else f"{flag}={value}" for flag, value in flags.items())]
