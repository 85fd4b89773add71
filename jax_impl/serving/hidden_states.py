"""The hidden states of given histories."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.typing import ArrayLike

from ...recsys import Ragged
from ...recsys.serving.hidden_states import encode_batches
from ..models.parts import Graph, Parts
from ..models.sequence_model import SequenceModel


def hidden_states(model: SequenceModel, histories: Ragged) -> npt.NDArray[np.float32]:
    """Those (rows, D) that score the next item after each history."""
    parts, rows = Parts.of(model), model.item_rows()
    return encode_batches(partial(_batch_hidden, *parts, rows), model.config, histories)


@partial(jax.jit, static_argnames="graph")
def _batch_hidden(graph: Graph, parameters: Any, constants: Any, rows: Array, inputs: ArrayLike) -> Array:
    """The model comes in parts: what a call hands over is arrays alone."""
    return Parts(graph, parameters, constants).model().next_item_hidden(jnp.asarray(inputs), rows)
