"""The command ``cce-minus-jax``."""

from __future__ import annotations

from pathlib import Path

from ..recsys import TrainConfig
from ..recsys.cli.commands import build_app
from ..recsys.serving.served_run import ServedModel


def _train(config: TrainConfig) -> object:
    from .train import train  # here, because --help need not wait for the framework

    return train(config)


def _load(weights: Path, device: str) -> ServedModel:
    from .serve import load_served

    return load_served(weights, device)


app = build_app("jax", _train, _load)


def main() -> None:
    """Runs the command line."""
    app()
