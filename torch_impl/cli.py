"""The command ``cce-minus-torch``."""

from __future__ import annotations

import sys

from ..recsys.cli.commands import framework_app

app = framework_app("torch", __package__)


def main() -> None:
    """Runs the command line."""
    # Lightning Fabric imports it, where it is installed, with all that it knows of, to look at its version: seconds of
    # a start. No command has a use for it.
    sys.modules.setdefault("torchmetrics", None)  # pyright: ignore[reportArgumentType]
    app()
