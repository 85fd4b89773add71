"""Checkpoints of runs that version 0.1 began, which Lightning's Trainer wrote."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch

from ...recsys import ConfigError
from ...recsys.run.progress import Progress
from ...recsys.run.tensor_file import Stored
from ..stored import stored

NAME = "last.ckpt"


def read_earlier(path: Path, parameters: Iterable[str]) -> tuple[dict[str, Stored], Progress]:
    """The tensors of ``path``, by today's names, and its progress; ``parameters`` are named in the optimizer's order.
    Raises ``ConfigError`` for a file that cannot be read."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**found["callbacks"]["EpochRecorder"])
        moments = found["optimizer_states"][0]["state"]
        tensors = {f"optimizer/{key}/{p}": t for n, p in enumerate(parameters) for key, t in moments[n].items()}
        tensors |= {name.replace("model.", "model/", 1): tensor for name, tensor in found["state_dict"].items()}
    # What unpickling raises for a damaged file, beside the archive's own RuntimeError.
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = f"{type(error).__name__}: {error!s:.100}"
        raise ConfigError(f"resume: expected a checkpoint that can be read, got {path} ({reason})") from error
    tensors.pop("model/item_features", None)  # no part of a checkpoint any more
    return {name: stored(tensor) for name, tensor in tensors.items()}, progress
