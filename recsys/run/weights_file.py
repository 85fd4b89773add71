"""The weights file both frameworks read and write: safetensors, torch-like names, (out, in) matrices, float32.

The model's configuration is kept in the file's metadata under ``config`` (JSON). Reading never executes code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import ConfigError
from ..files import replacing
from .model_config import ModelConfig

# Dropout does not change what the weights mean, so a file may be loaded under another rate.
_STRUCTURE = ("model", "num_items", "max_length", "dim", "num_blocks", "num_heads", "num_features")

ITEM_FEATURES = "item_features"
"""The tensor of the items' side features: never trained, but stored, so that a served model needs no other file."""


class WeightsError(ConfigError):
    """A weights file that is unreadable or does not fit the model; the message names file and tensor."""


def write_weights(path: str | os.PathLike[str], config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes ``tensors`` and ``config`` to ``path`` by a rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={"config": json.dumps(asdict(config))})


def read_config(path: str | os.PathLike[str]) -> ModelConfig:
    """The configuration of the model whose weights the file holds, without reading these; raises ``WeightsError``."""
    stored, _ = _open(path, names=())
    try:
        return ModelConfig(**stored)
    except (TypeError, ConfigError) as error:
        raise WeightsError(
            f"{path}: expected a model's configuration in the metadata, got {stored} ({error})"
        ) from error


def read_weights(
    path: str | os.PathLike[str], config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Reads the tensors named in ``shapes`` from ``path``.

    Raises ``WeightsError`` when the file cannot be read, was written for another configuration (dropout aside), or has
    a missing tensor, an unknown tensor, a tensor of another shape or dtype than float32, or numbers that are not
    finite: those of a training that diverged rank nothing.
    """
    stored, tensors = _open(path)
    for name in _STRUCTURE:
        expected, got = getattr(config, name), stored.get(name)
        if got != expected:
            raise WeightsError(f"{path}: config {name}: expected {expected}, got {got}")
    for name in sorted(shapes.keys() | tensors.keys()):
        expected_text = _describe(np.dtype(np.float32), shapes[name]) if name in shapes else "no such tensor"
        got_text = _describe(tensors[name].dtype, tensors[name].shape) if name in tensors else "no such tensor"
        if expected_text != got_text:
            raise WeightsError(f"{path}: tensor {name}: expected {expected_text}, got {got_text}")
        if not np.isfinite(tensors[name]).all():
            raise WeightsError(f"{path}: tensor {name}: expected finite numbers, got NaN or inf among them")
    return tensors


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a file, of whatever model; raises ``WeightsError`` when it cannot be read."""
    return _open(path)[1]


def _open(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The configuration in a file's metadata, and its tensors: all, or those of ``names``."""
    try:
        with safe_open(path, framework="np") as file:
            stored = json.loads((file.metadata() or {}).get("config", "{}"))
            if not isinstance(stored, dict):
                raise WeightsError(f"{path}: expected a JSON object as the metadata's config, got {stored!r:.80}")
            return stored, {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    except (OSError, SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"{path}: expected a safetensors file of a model's weights, got: {error}") from error


def _describe(dtype: np.dtype, shape: tuple[int, ...]) -> str:
    return f"{dtype.name} {tuple(shape)}"
