"""Ranks of held-out items over the full catalog, computed on the model's device in chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ..recsys import Ragged, eval_batches, ranking_metrics
from .sequence_model import SequenceModel

Carry = TypeVar("Carry")

CHUNK = 8192
"""Catalog items scored at once: memory is rows x CHUNK scores, whatever the catalog's size."""


def evaluate(
    model: SequenceModel,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    batch_size: int = 128,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Returns NDCG@10, HR@10 and MRR@10 of ``targets`` (rows,) after ``histories``, dropout off.

    Seen items compete too. The last ``max_length`` items of a history count. Compiled once for a batch size.
    """
    ranks = [
        np.asarray(batch_ranks(model, batch.inputs, batch.target, chunk))[: batch.count]
        for batch in eval_batches(histories, targets, batch_size=batch_size, max_length=model.config.max_length)
    ]
    return ranking_metrics(np.concatenate(ranks))


@partial(nnx.jit, static_argnums=3)
def batch_ranks(model: SequenceModel, inputs: ArrayLike, target: ArrayLike, chunk: int = CHUNK) -> Array:
    """Returns the rank (B,) of ``target`` (B,) after the sequences ``inputs`` (B, L)."""
    return target_ranks(model.next_item_hidden(jnp.asarray(inputs)), model.item_table[...], jnp.asarray(target), chunk)


@partial(jax.jit, static_argnums=3)
def target_ranks(hidden: Array, table: Array, target: Array, chunk: int = CHUNK) -> Array:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int32, 1 is best, in float32.

    ``rank = 1 + #(score > target's) + #(score == target's and id < target)``, NaN above every number, and V
    + 1 for a NaN target score: the rule of ``recsys.target_ranks``. ``hidden`` (B, D), ``table`` (V, D),
    ``target`` (B,); negative targets mark rows that only fill the batch, and their rank means nothing.
    """
    target = jnp.maximum(target, 0)[:, None]

    # Scored in the same products as its rivals, so that equal rows of the table tie exactly.
    def find_target(target_score: Array, ids: Array, scores: Array) -> Array:
        column = target - ids[0]
        here = (column >= 0) & (column < len(ids))
        found = jnp.take_along_axis(scores, jnp.clip(column, 0, len(ids) - 1), axis=1)
        return jnp.where(here, found, target_score)

    def count_ahead(rank: Array, ids: Array, scores: Array) -> Array:
        ahead = (scores > target_score) | jnp.isnan(scores) | ((scores == target_score) & (ids < target))
        return rank + ahead.sum(axis=1, dtype=jnp.int32)

    target_score = fold_catalog(find_target, jnp.zeros(target.shape, jnp.float32), hidden, table, chunk)
    rank = fold_catalog(count_ahead, jnp.ones(len(target), jnp.int32), hidden, table, chunk)
    return jnp.where(jnp.isnan(target_score[:, 0]), len(table) + 1, rank)


def fold_catalog(fold: Callable[[Carry, Array, Array], Carry], carry: Carry, hidden: Array, table: Array, chunk: int) -> Carry:
    """Folds ``carry = fold(carry, ids (C,), scores (B, C))`` over the catalog in order, float32, C <= chunk.

    Full chunks share one compiled loop body; the remainder, of another shape, follows it.
    """

    def step(carry: Carry, begin: Array | int, width: int) -> Carry:
        rows = jax.lax.dynamic_slice_in_dim(table, begin, width).astype(jnp.float32)
        scores = jnp.matmul(hidden.astype(jnp.float32), rows.T, precision="highest")
        return fold(carry, begin + jnp.arange(width), scores)

    full, remainder = divmod(len(table), chunk)
    if full:
        carry = jax.lax.fori_loop(0, full, lambda index, state: step(state, index * chunk, chunk), carry)
    return step(carry, full * chunk, remainder) if remainder else carry
