"""The checkpoint of a training: one safetensors file of tensors by name, written by a rename; reading runs no code.

The metadata hold the number of the ``SCHEMA`` and the run's `Progress` as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from ..errors import ConfigError
from ..files import replacing
from ..option_checks import require_schema
from .progress import Progress
from .run_directory import RunDirectory
from .tensor_file import Stored, open_tensor_file, write_tensor_file

SCHEMA = 2
"""1 were the checkpoints of Lightning (last.ckpt) and Orbax (a folder an epoch)."""

NAME = "last.safetensors"


def write_checkpoint(run: RunDirectory, tensors: Mapping[str, np.ndarray | Stored], progress: Progress) -> None:
    """Writes the state after ``progress.epochs`` epochs in place of the one before."""
    metadata = {"schema": str(SCHEMA), "progress": json.dumps(asdict(progress))}
    with replacing(run.checkpoints / NAME) as temporary:
        write_tensor_file(temporary, {name: Stored.of(each) for name, each in tensors.items()}, metadata)


def read_checkpoint(path: Path, option: str = "resume") -> tuple[dict[str, Stored], Progress]:
    """The tensors and the progress of the file ``path``; raises ``ConfigError`` that names the ``option`` for one that
    cannot be read."""
    try:
        metadata, tensors = open_tensor_file(path)
        require_schema(option, int(metadata.get("schema", "0")), SCHEMA)
        progress = Progress(**json.loads(metadata["progress"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{option}: expected a checkpoint that can be read, got {path} ({error!s:.100})") from error
    return tensors, progress


def require_arrays(
    path: Path, tensors: Mapping[str, Stored], expected: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Raises ``ConfigError`` unless the ``tensors`` of the file ``path`` have the ``expected`` names, shapes and
    dtypes."""
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if different := sorted(found.items() ^ expected.items()):
        name = different[0][0]
        raise ConfigError(
            f"resume: expected {name} as {expected.get(name, 'no array')}, got {found.get(name, 'none')} in {path}"
        )
