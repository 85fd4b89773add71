"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ..recsys import ConfigError, Ragged, last_items
from .evaluate import CHUNK, fold_catalog
from .sequence_model import SequenceModel


def recommend(
    model: SequenceModel,
    histories: Ragged | Sequence[Sequence[int] | npt.NDArray[np.integer]],
    k: int,
    *,
    batch_size: int = 128,
    chunk: int = CHUNK,
) -> npt.NDArray[np.int64]:
    """Returns the ids (rows, k) of the k items with the highest scores after each history, best first.

    Equal scores go to the lower id first, as in the metrics; NaN scores come last. Items already in a history
    may be recommended again. Raises ``ConfigError`` unless 1 <= k <= V and every id is in [0, V).
    """
    num_items, max_length = model.config.num_items, model.config.max_length
    if not 1 <= k <= num_items:
        raise ConfigError(f"k: expected an integer from 1 to {num_items}, got {k}")
    rows = histories if isinstance(histories, Ragged) else Ragged.from_rows(histories)
    if len(rows.values) and (rows.values.min() < 0 or rows.values.max() >= num_items):
        raise ConfigError(f"histories: expected ids in [0, {num_items}), got {rows.values.min()}..{rows.values.max()}")
    height = min(batch_size, max(len(rows), 1))
    top = np.empty((len(rows), k), dtype=np.int64)
    for begin in range(0, len(rows), batch_size):
        chosen = np.arange(begin, min(begin + batch_size, len(rows)))
        inputs = last_items(rows, chosen, width=max_length, height=height)
        top[chosen] = np.asarray(_batch_top(model, inputs, k, chunk))[: len(chosen)]
    return top


@partial(nnx.jit, static_argnums=(2, 3))
def _batch_top(model: SequenceModel, inputs: ArrayLike, k: int, chunk: int) -> Array:
    return top_items(model.next_item_hidden(jnp.asarray(inputs)), model.item_table[...], k, chunk)


@partial(jax.jit, static_argnums=(2, 3))
def top_items(hidden: Array, table: Array, k: int, chunk: int = CHUNK) -> Array:
    """Ids (B, k) int32 of the highest scores ``hidden @ table.T``, ties by lower id."""

    # Slots not filled yet lose to every item, because an item's score is kept above -inf.
    lowest = jnp.finfo(jnp.float32).min
    empty = (jnp.full((len(hidden), k), -jnp.inf, jnp.float32), jnp.zeros((len(hidden), k), jnp.int32))

    def merge(best: tuple[Array, Array], ids: Array, scores: Array) -> tuple[Array, Array]:
        scores = jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest)
        # top_k puts the earlier of equal scores first, and the earlier one has the lower id.
        all_scores = jnp.concatenate([best[0], scores], axis=1)
        all_ids = jnp.concatenate([best[1], jnp.broadcast_to(ids, scores.shape)], axis=1)
        top_scores, places = jax.lax.top_k(all_scores, k)
        return top_scores, jnp.take_along_axis(all_ids, places, axis=1)

    return fold_catalog(merge, empty, hidden, table, chunk)[1]
