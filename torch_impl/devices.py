"""The device of a run by its name."""

from __future__ import annotations

import torch

from ..recsys import ConfigError


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda``, or with ``auto`` a GPU where there is one; raises ``ConfigError`` for others and for a GPU
    that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu or cuda, got {name}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: expected one that is present, got cuda without a usable NVIDIA GPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
