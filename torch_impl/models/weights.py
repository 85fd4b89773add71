"""Reads and writes a PyTorch model's weights in the format shared with its Flax twin."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ...kernels.draws.shard import Shard
from ...recsys.run.warm_start import WarmStart
from ...recsys.run.weights_file import OF_ITEMS, read_weights, write_weights
from ..shards import fill_shard, whole_shape
from ..stored import stored
from .sequence_model import SequenceModel


def save_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Writes the parameters and item features of ``model`` as safetensors, with its configuration in the metadata."""
    write_weights(path, model.config, {name: stored(tensor) for name, tensor in model.state_dict().items()})


def shard_of(model: SequenceModel, name: str) -> Shard | None:
    """The part of the items whose rows a tensor has; None where it has all that there are."""
    return model.shard if name in OF_ITEMS else None


def load_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Loads ``path`` into ``model`` in place; raises ``WeightsError`` (a ``ValueError``) naming what differs."""
    state = model.state_dict()
    tensors = read_weights(path, model.config, _whole_shapes(model))
    for name, tensor in state.items():
        fill_shard(tensor, tensors[name], shard_of(model, name))


def start_weights(model: SequenceModel, start: WarmStart) -> None:
    """Loads the weights of an earlier run into ``model`` in place; its item features stay. Raises ``WeightsError``."""
    state = model.state_dict()
    for name, source in start.weights(_whole_shapes(model)).items():
        fill_shard(state[name], source, shard_of(model, name))


def _whole_shapes(model: SequenceModel) -> dict[str, tuple[int, ...]]:
    return {name: whole_shape(tensor, shard_of(model, name)) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def largest_weight(model: SequenceModel) -> Tensor:
    """The largest magnitude () of the parameters, NaN if there is one among them."""
    # A norm holds no copy of a table, as a test of each element would.
    magnitudes: list[Tensor] = [torch.linalg.vector_norm(weight, torch.inf) for weight in model.parameters()]
    return torch.stack(magnitudes).max()
