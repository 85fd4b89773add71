"""The command ``cce-minus-torch``."""

from __future__ import annotations

from ..recsys.cli.commands import framework_app

app = framework_app("torch", __package__)


def main() -> None:
    """Runs the command line."""
    app()
