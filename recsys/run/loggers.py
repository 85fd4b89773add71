"""Loggers by name: callbacks that write a run's options and metrics for another program."""

from __future__ import annotations

import importlib

from .events import Callback
from .log_choices import require_installed

_CLASSES = {
    "tensorboard": ("tensorboard_log", "TensorBoardLog"),
    "mlflow": ("mlflow_log", "MlflowLog"),
    "wandb": ("wandb_log", "WandbLog"),
}


def logger_named(name: str) -> Callback:
    """A new logger; its packages are imported once a run starts. Raises ``ConfigError`` where one is missing."""
    require_installed(name)
    module, kind = _CLASSES[name]
    return getattr(importlib.import_module(f".{module}", __package__), kind)()
