"""Reads and writes a Flax model's weights in the format shared with its PyTorch twin."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ...recsys.run.tensor_file import Stored, take_part
from ...recsys.run.warm_start import WarmStart
from ...recsys.run.weights_file import read_weights, write_weights
from ..stored import asked_for, filled, stored_whole, whole_shape
from .sequence_model import ItemFeatures, SequenceModel

# Flax's names for leaves against the file's; a kernel is stored (in, out) in Flax, (out, in) in the file.
_LEAF_NAMES = {"kernel": "weight", "scale": "weight"}

Named = tuple[tuple[Any, ...], str, nnx.Variable, bool]
"""A parameter's path, its name in the file, the variable, and whether it is a dense layer's kernel."""


def save_weights(model: SequenceModel, path: str | os.PathLike[str], *, writes: bool = True) -> None:
    """Writes the parameters and item features of ``model`` as safetensors, with its configuration in the metadata.

    Of several processes the first one ``writes``; where their devices share the item table, all of them call it.
    """
    parameters = _parameters(model)
    kernels = {name for _, name, _, is_kernel in parameters if is_kernel}
    arrays = asked_for({name: param.get_raw_value() for _, name, param, _ in parameters}, writes=writes)
    tensors = {
        name: Stored.of(np.asarray(array).T) if name in kernels else stored_whole(array, model.config.num_items)
        for name, array in arrays.items()
    }
    if writes:
        write_weights(path, model.config, tensors)
    else:
        take_part(tensors)


def load_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Loads ``path`` into ``model`` in place; raises ``WeightsError`` (a ``ValueError``) naming what differs."""
    parameters = _parameters(model)
    tensors = read_weights(path, model.config, _shapes(model, parameters))
    # Not by an index: a model of shapes alone (``nnx.eval_shape``) has no arrays to write into.
    loaded = [(path, param.replace(_loaded(tensors[name], param, kernel))) for path, name, param, kernel in parameters]
    nnx.update(model, nnx.from_flat_state(loaded))


def start_weights(model: SequenceModel, start: WarmStart) -> None:
    """Loads the weights of an earlier run into ``model`` in place; its item features stay. Raises ``WeightsError``."""
    parameters = _parameters(model)
    sources = start.weights(_shapes(model, parameters))
    loaded = []
    for path, name, param, kernel in parameters:
        if (source := sources.get(name)) is not None:
            is_stored = isinstance(source, Stored)  # as each kernel is
            array = _loaded(source, param, kernel) if is_stored else filled(param[...], source)
            loaded.append((path, param.replace(array)))
    nnx.update(model, nnx.from_flat_state(loaded))


@jax.jit
def largest_weight(parameters: nnx.State) -> Array:
    """The largest magnitude () of a model's parameters, NaN if there is one among them."""
    return jnp.stack([jnp.abs(weight).max() for weight in jax.tree.leaves(parameters)]).max()


def _parameters(model: SequenceModel) -> list[Named]:
    """The model's parameters and item features."""
    parameters = []
    for path, param in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, ItemFeatures))):
        *parents, leaf = map(str, path)
        parameters.append((path, ".".join([*parents, _LEAF_NAMES.get(leaf, leaf)]), param, leaf == "kernel"))
    return parameters


def _shapes(model: SequenceModel, parameters: list[Named]) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a file."""
    return {
        name: param.shape[::-1] if kernel else whole_shape(param.get_raw_value(), model.config.num_items)
        for _, name, param, kernel in parameters
    }


def _loaded(tensor: Stored, param: nnx.Variable, kernel: bool) -> Array:
    return jnp.asarray(tensor.array().T) if kernel else filled(param.get_raw_value(), tensor)
