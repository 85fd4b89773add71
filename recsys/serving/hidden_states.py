"""The loop over histories of which the hidden states are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from ..protocol.batches import last_items
from ..run.model_config import ModelConfig

_AT_ONCE = 64

Encode = Callable[[npt.NDArray[np.int32]], npt.ArrayLike]
"""``encode(inputs (B, L))``: the states (B, D) float32 that score the next item, on the host."""


def encode_batches(encode: Encode, model: ModelConfig, histories: Ragged) -> npt.NDArray[np.float32]:
    """The hidden states (rows, D) after the last ``max_length`` items of each history."""
    states = np.empty((len(histories), model.dim), np.float32)
    # All batches have the same shape: JAX compiles once.
    height = min(_AT_ONCE, max(len(histories), 1))
    for begin in range(0, len(histories), height):
        chosen = np.arange(begin, min(begin + height, len(histories)))
        inputs = last_items(histories, chosen, width=model.max_length, height=height)
        states[chosen] = np.asarray(encode(inputs))[: len(chosen)]
    return states
