"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ...recsys import SeenItems
from ...recsys.serving.evaluation import Histories, recommend_batches
from ..models.sequence_model import SequenceModel
from .ranking import Seen, top_items


def recommend(
    model: SequenceModel,
    histories: Histories,
    k: int,
    *,
    filter_seen: bool = False,
    batch_size: int = 128,
    chunk: int | None = None,
) -> npt.NDArray[np.int64]:
    """Returns the ids (rows, k) of the k best items after each history, as `recommend_batches` says, dropout off.

    Items are scored by kernels on a GPU, else 8192 at once; a ``chunk`` scores so many at once in plain JAX.
    """
    rows = model.item_rows()

    def top(inputs: npt.NDArray[np.int32], seen: SeenItems | None) -> Array:
        return _batch_top(model, rows, inputs, k, chunk, Seen.of(seen, len(inputs)))

    return recommend_batches(top, model.config, histories, k, filter_seen=filter_seen, batch_size=batch_size)


@partial(nnx.jit, static_argnums=(3, 4))
def _batch_top(
    model: SequenceModel, rows: Array, inputs: ArrayLike, k: int, chunk: int | None, seen: Seen | None
) -> Array:
    return top_items(model.next_item_hidden(jnp.asarray(inputs), rows), rows, k, chunk, seen)
