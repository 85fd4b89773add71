"""The checkpoint of a training: one safetensors file of arrays by name, written by a rename; reading runs no code.

The metadata hold the number of the ``SCHEMA`` and the run's `Progress` as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import ConfigError
from ..files import replacing
from ..option_checks import require_schema
from .progress import Progress
from .run_directory import RunDirectory

SCHEMA = 2
"""1 were the checkpoints of Lightning (last.ckpt) and Orbax (a folder an epoch)."""

NAME = "last.safetensors"


def write_checkpoint(run: RunDirectory, arrays: Mapping[str, np.ndarray], progress: Progress) -> None:
    """Writes the state after ``progress.epochs`` epochs in place of the one before."""
    metadata = {"schema": str(SCHEMA), "progress": json.dumps(asdict(progress))}
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # numbers stay numbers
    with replacing(run.checkpoints / NAME) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], Progress]:
    """The arrays and the progress of the file ``path``; raises ``ConfigError`` for one that cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            schema = int(metadata.get("schema", "0"))
            require_schema("resume", schema, SCHEMA)
            progress = Progress(**json.loads(metadata["progress"]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"resume: expected a checkpoint that can be read, got {path} ({error!s:.100})") from error
    return arrays, progress


def require_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Raises ``ConfigError`` unless the ``arrays`` of the file ``path`` have the ``expected`` names, shapes and NumPy
    dtypes."""
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if different := sorted(found.items() ^ expected.items()):
        name = different[0][0]
        raise ConfigError(
            f"resume: expected {name} as {expected.get(name, 'no array')}, got {found.get(name, 'none')} in {path}"
        )
