"""Metrics of held-out items over the full catalog, ranked on the model's device."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ...recsys import EvalBatch, Ragged
from ...recsys.serving.evaluation import evaluate_batches
from ..models.sequence_model import SequenceModel
from .ranking import Seen, rank_and_top


def evaluate(
    model: SequenceModel,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    chunk: int | None = None,
    **options: Any,
) -> dict[str, float]:
    """Returns the metrics of `evaluate_batches`, whose ``options`` it takes, dropout off.

    Items are scored by kernels on a GPU, else 8192 at once; a ``chunk`` scores so many at once in plain JAX. Compiled
    once for a batch size (and number of seen items, rounded up to a power of two).
    """
    rows = model.item_rows()

    def rank(batch: EvalBatch, k: int) -> tuple[Array, Array]:
        seen = Seen.of(batch.seen, len(batch.inputs))
        return batch_ranking(model, rows, batch.inputs, batch.target, k, chunk, seen)

    return evaluate_batches(rank, model.config, histories, targets, **options)


@partial(nnx.jit, static_argnums=(4, 5))
def batch_ranking(
    model: SequenceModel,
    rows: Array,
    inputs: ArrayLike,
    target: ArrayLike,
    k: int,
    chunk: int | None = None,
    seen: Seen | None = None,
) -> tuple[Array, Array]:
    """Returns the rank (B,) of ``target`` (B,) after the sequences ``inputs`` (B, L), and the k best items (B, k).

    ``rows`` (V, D) are ``model.item_rows()``, computed once for all batches."""
    return rank_and_top(model.next_item_hidden(jnp.asarray(inputs), rows), rows, jnp.asarray(target), k, chunk, seen)
