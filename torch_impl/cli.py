"""The command ``cce-minus-torch``."""

from __future__ import annotations

from ..recsys.cli import build_app
from .train import train

app = build_app("torch", train)


def main() -> None:
    """Runs the command line."""
    app()
