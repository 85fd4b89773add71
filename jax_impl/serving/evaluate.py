"""Metrics of held-out items over the full catalog, ranked on the model's device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ...recsys import MetricsTally, Ragged, eval_batches
from ..models.sequence_model import SequenceModel
from .ranking import CHUNK, Seen, rank_and_top


def evaluate(
    model: SequenceModel,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    cutoffs: Sequence[int] = (10,),
    filter_seen: bool = False,
    information: npt.NDArray[np.float64] | None = None,
    batch_size: int = 128,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Returns NDCG, HR, MRR, Recall, MAP, Coverage and Surprisal, ``ndcg@10`` and so on, for each k of ``cutoffs``,
    dropout off.

    Ranks ``targets`` (rows,) after the last ``max_length`` items of each of ``histories``. Seen items compete too;
    ``filter_seen`` leaves all items of a history, however long, out of its ranking and top list, except for the target.
    ``information`` (V,) float64 is ``self_information`` of the training part; without it there is no Surprisal.
    Compiled once for a batch size (and number of seen items, rounded up to a power of two). Raises ``ConfigError`` for
    cutoffs below 1 and information of another catalog.
    """
    num_items = model.config.num_items
    tally = MetricsTally(num_items, cutoffs=cutoffs, information=information)
    max_length = model.config.max_length
    rows = model.item_rows()
    for batch in eval_batches(
        histories, targets, batch_size=batch_size, max_length=max_length, filter_seen=filter_seen
    ):
        seen = Seen.of(batch.seen, num_items, chunk)
        ranks, top = batch_ranking(model, rows, batch.inputs, batch.target, tally.width, chunk, seen)
        tally.add(np.asarray(ranks)[: batch.count], np.asarray(top)[: batch.count])
    return tally.metrics()


@partial(nnx.jit, static_argnums=(4, 5))
def batch_ranking(
    model: SequenceModel,
    rows: Array,
    inputs: ArrayLike,
    target: ArrayLike,
    k: int,
    chunk: int = CHUNK,
    seen: Seen | None = None,
) -> tuple[Array, Array]:
    """Returns the rank (B,) of ``target`` (B,) after the sequences ``inputs`` (B, L), and the k best items (B, k).

    ``rows`` (V, D) are ``model.item_rows()``, computed once for all batches."""
    return rank_and_top(model.next_item_hidden(jnp.asarray(inputs), rows), rows, jnp.asarray(target), k, chunk, seen)
