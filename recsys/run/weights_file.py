"""The weights file both frameworks read and write: safetensors, torch-like names, (out, in) matrices, float32; the item
table may be bfloat16.

The model's configuration is kept in the file's metadata under ``config`` (JSON). Reading never executes code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from ..errors import ConfigError
from ..files import replacing
from .model_config import ModelConfig
from .tensor_file import Stored, open_tensor_file, write_tensor_file

# Dropout does not change what the weights mean, so a file may be loaded under another rate.
_STRUCTURE = ("model", "num_items", "max_length", "dim", "num_blocks", "num_heads", "num_features")

ITEM_TABLE = "item_table"
"""The tensor of the items' own rows, which may be bfloat16."""

ITEM_FEATURES = "item_features"
"""The tensor of the items' side features: never trained, but stored, so that a served model needs no other file."""

OF_ITEMS = (ITEM_TABLE, ITEM_FEATURES)
"""Tensors with a row for each item of the catalog."""


class WeightsError(ConfigError):
    """A weights file that is unreadable or does not fit the model; the message names file and tensor."""


def write_weights(
    path: str | os.PathLike[str], config: ModelConfig, tensors: Mapping[str, np.ndarray | Stored]
) -> None:
    """Writes ``tensors`` and ``config`` to ``path`` by a rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: Stored.of(tensor) for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        write_tensor_file(temporary, stored, {"config": json.dumps(asdict(config))})


def read_config(path: str | os.PathLike[str]) -> ModelConfig:
    """The configuration of the model whose weights the file holds, without reading these; raises ``WeightsError``."""
    stored, _ = _open(path)
    try:
        return ModelConfig(**stored)
    except (TypeError, ConfigError) as error:
        raise WeightsError(
            f"{path}: expected a model's configuration in the metadata, got {stored} ({error})"
        ) from error


def read_weights(
    path: str | os.PathLike[str], config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Stored]:
    """The tensors named in ``shapes`` of ``path``, to be read in pieces.

    Raises ``WeightsError`` when the file cannot be read, was written for another configuration (dropout and the table's
    dtype aside), or has a missing tensor, an unknown tensor, a tensor of another shape or dtype than float32 (or
    bfloat16, the item table), or numbers that are not finite: those of a training that diverged rank nothing.
    """
    stored, tensors = _open(path)
    for name in _STRUCTURE:
        expected, got = getattr(config, name), stored.get(name)
        if got != expected:
            raise WeightsError(f"{path}: config {name}: expected {expected}, got {got}")
    for name in sorted(shapes.keys() | tensors.keys()):
        expected_text = f"float32 {tuple(shapes[name])}" if name in shapes else "no such tensor"
        got_text = f"{tensors[name].dtype} {tensors[name].shape}" if name in tensors else "no such tensor"
        if name == ITEM_TABLE:
            got_text = got_text.replace("bfloat16", "float32")
        if expected_text != got_text:
            raise WeightsError(f"{path}: tensor {name}: expected {expected_text}, got {got_text}")
        if not tensors[name].is_finite():
            raise WeightsError(f"{path}: tensor {name}: expected finite numbers, got NaN or inf among them")
    return tensors


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Stored]:
    """The tensors of a file, of whatever model; raises ``WeightsError`` when it cannot be read."""
    return _open(path)[1]


def _open(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The configuration in a file's metadata, and its tensors."""
    try:
        metadata, tensors = open_tensor_file(Path(path))
        stored = json.loads(metadata.get("config", "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: expected a safetensors file of a model's weights, got: {error}") from error
    if not isinstance(stored, dict):
        raise WeightsError(f"{path}: expected a JSON object as the metadata's config, got {stored!r:.80}")
    return stored, tensors
