"""The command ``cce-minus-jax``."""

from __future__ import annotations

import os
from pathlib import Path

from ..recsys.cli.commands import framework_app

app = framework_app("jax", __package__)


CACHE = "JAX_COMPILATION_CACHE_DIR"
"""JAX's own variable: the folder in which compiled programs are kept for the next process."""


def main() -> None:
    """Runs the command line, with compiled programs kept in the user's cache unless JAX is told of another folder."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault(CACHE, str(caches / "cce-minus" / "xla"))
    app()
