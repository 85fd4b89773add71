"""The command ``cce-minus-jax``."""

from __future__ import annotations

from ..recsys import TrainConfig
from ..recsys.cli import build_app


def _train(config: TrainConfig) -> object:
    from .train import train  # here, because --help need not wait for the framework

    return train(config)


app = build_app("jax", _train)


def main() -> None:
    """Runs the command line."""
    app()
