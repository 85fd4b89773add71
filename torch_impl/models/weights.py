"""Reads and writes a PyTorch model's weights in the format shared with its Flax twin."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ...recsys.run.warm_start import WarmStart
from ...recsys.run.weights_file import read_weights, write_weights
from ..stored import fill, stored
from .sequence_model import SequenceModel


def save_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Writes the parameters and item features of ``model`` as safetensors, with its configuration in the metadata."""
    write_weights(path, model.config, {name: stored(tensor) for name, tensor in model.state_dict().items()})


def load_weights(model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Loads ``path`` into ``model`` in place; raises ``WeightsError`` (a ``ValueError``) naming what differs."""
    state = model.state_dict()
    tensors = read_weights(path, model.config, {name: tuple(tensor.shape) for name, tensor in state.items()})
    for name, tensor in state.items():
        fill(tensor, tensors[name])


def start_weights(model: SequenceModel, start: WarmStart) -> None:
    """Loads the weights of an earlier run into ``model`` in place; its item features stay. Raises ``WeightsError``."""
    state = model.state_dict()
    for name, source in start.weights({name: tuple(tensor.shape) for name, tensor in state.items()}).items():
        fill(state[name], source)


@torch.no_grad()
def largest_weight(model: SequenceModel) -> Tensor:
    """The largest magnitude () of the parameters, NaN if there is one among them."""
    # A norm holds no copy of a table, as a test of each element would.
    magnitudes: list[Tensor] = [torch.linalg.vector_norm(weight, torch.inf) for weight in model.parameters()]
    return torch.stack(magnitudes).max()
