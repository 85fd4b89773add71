"""Reads and writes a Flax model's weights in the format shared with its PyTorch twin."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from ...recsys.run.tensor_file import Stored
from ...recsys.run.weights_file import read_weights, write_weights
from ..stored import array_of, stored
from .sequence_model import ItemFeatures, SequenceModel

# Flax's names for leaves against the file's; a kernel is stored (in, out) in Flax, (out, in) in the file.
_LEAF_NAMES = {"kernel": "weight", "scale": "weight"}


def save_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Writes the parameters and item features of ``model`` as safetensors, with its configuration in the metadata."""
    tensors = {
        name: Stored.of(np.asarray(param[...]).T) if kernel else stored(param[...])
        for _, name, param, kernel in _parameters(model)
    }
    write_weights(path, model.config, tensors)


def load_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Loads ``path`` into ``model`` in place; raises ``WeightsError`` (a ``ValueError``) naming what differs."""
    parameters = _parameters(model)
    shapes = {name: param.shape[::-1] if kernel else param.shape for _, name, param, kernel in parameters}
    tensors = read_weights(path, model.config, shapes)
    # Not by an index: a model of shapes alone (``nnx.eval_shape``) has no arrays to write into.
    loaded = [
        (path, param.replace(_loaded(tensors[name], param.dtype, kernel))) for path, name, param, kernel in parameters
    ]
    nnx.update(model, nnx.from_flat_state(loaded))


@jax.jit
def largest_weight(parameters: nnx.State) -> Array:
    """The largest magnitude () of a model's parameters, NaN if there is one among them."""
    return jnp.stack([jnp.abs(weight).max() for weight in jax.tree.leaves(parameters)]).max()


def _parameters(model: SequenceModel) -> list[tuple[tuple[Any, ...], str, nnx.Variable, bool]]:
    """The model's parameters and item features as (path, name in the file, variable, whether it is a dense layer's
    kernel)."""
    parameters = []
    for path, param in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, ItemFeatures))):
        *parents, leaf = map(str, path)
        parameters.append((path, ".".join([*parents, _LEAF_NAMES.get(leaf, leaf)]), param, leaf == "kernel"))
    return parameters


def _loaded(tensor: Stored, dtype: DTypeLike, kernel: bool) -> Array:
    return jnp.asarray(tensor.array().T) if kernel else array_of(tensor, dtype)
