"""Checkpoints of runs that version 0.1 began, which Orbax wrote."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np

from ...recsys import ConfigError
from ...recsys.run.progress import Progress
from ...recsys.run.tensor_file import Stored

_NAMES = (("0/", "parameters/"), ("1/opt_state/0/", "optimizer/0/"), ("2/values", "frequencies"))
"""How names began and begin; what begins otherwise is no part of a checkpoint any more."""


def find_earlier(folder: Path) -> Path | None:
    """The last checkpoint in ``folder``: a folder named by its epoch."""
    numbers = [path for path in folder.iterdir() if path.name.isdecimal()]
    return max(numbers, key=lambda path: int(path.name), default=None)


def read_earlier(path: Path) -> tuple[dict[str, Stored], Progress]:
    """The tensors of ``path``, by today's names, and its progress; raises ``ConfigError`` for a folder that cannot be
    read, and where Orbax is missing."""
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ConfigError(f"resume: {path} is of version 0.1: pip install orbax-checkpoint to take it up") from error
    try:
        progress = Progress(**json.loads((path / "progress" / "metadata").read_text(encoding="utf-8")))
        with ocp.StandardCheckpointer() as checkpointer:
            named, _ = jax.tree_util.tree_flatten_with_path(checkpointer.restore(path / "state"))
    except Exception as error:  # Orbax raises anything for a damaged file, a bare Exception too
        reason = f"{type(error).__name__}: {error!s:.100}"
        raise ConfigError(f"resume: expected a checkpoint that can be read, got {path} ({reason})") from error
    tensors = {}
    for keys, array in named:
        name = jax.tree_util.keystr(keys, simple=True, separator="/").removesuffix("/value")
        for was, now in _NAMES:
            if name.startswith(was) and name != "0/item_features":
                tensors[now + name.removeprefix(was)] = Stored.of(np.asarray(array))
    return tensors, progress
