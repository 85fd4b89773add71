"""The command ``cce-minus-jax``."""

from __future__ import annotations

from ..recsys.cli.commands import framework_app

app = framework_app("jax", __package__)


def main() -> None:
    """Runs the command line."""
    app()
