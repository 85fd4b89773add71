"""The command ``cce-minus-jax``."""

from __future__ import annotations

import importlib.util
import os

import jax

from ..recsys.cli.commands import framework_app
from ..recsys.data.wheels import cache_folder

app = framework_app("jax", __package__)

FOLDER, LEAST_SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
"""JAX's variables: where it keeps compiled programs for later processes, and those of how many seconds."""


def main() -> None:
    """Runs the command line."""
    if _has_gpu_support():  # a GPU's programs take half a minute to compile
        _keep(FOLDER, str(cache_folder() / "jax"))
        _keep(LEAST_SECONDS, 0)  # of a model's start there are dozens, each of a fraction of a second
    app()


def _keep(variable: str, value: str | float) -> None:
    """Sets JAX's option unless the user has set its variable, which JAX read when it was imported."""
    if variable not in os.environ:
        jax.config.update(variable.lower(), value)


def _has_gpu_support() -> bool:
    """Whether JAX is installed for a GPU; that is known without a look at the devices."""
    plugins = ("jax_plugins", "jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
    return importlib.util.find_spec(plugins[0]) is not None and any(map(importlib.util.find_spec, plugins[1:]))
