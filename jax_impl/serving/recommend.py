"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.typing import ArrayLike

from ...recsys import SeenItems
from ...recsys.serving.candidates import Ids, candidates_of
from ...recsys.serving.evaluation import Histories, recommend_batches
from ..models.parts import Graph, Parts
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
    candidates: Ids | None = None,
    excluded: Ids | None = None,
) -> npt.NDArray[np.int64]:
    """Returns the ids (rows, k) of the k best items after each history, as `recommend_batches` says, dropout off.

    ``candidates`` and ``excluded`` are ids of items (n,): only those, and none of these.
    Items are scored by kernels on a GPU, else 8192 at once; a ``chunk`` scores so many at once in plain JAX.
    """
    parts = Parts.of(model)
    rows = model.item_rows()
    mask = candidates_of(len(rows), candidates, excluded)
    chosen = None if mask is None else jnp.asarray(mask)

    def top(inputs: npt.NDArray[np.int32], seen: SeenItems | None) -> Array:
        return _batch_top(*parts, rows, inputs, Seen.of(seen, len(inputs)), chosen, k=k, chunk=chunk)

    options = {"filter_seen": filter_seen, "batch_size": batch_size}
    return recommend_batches(top, model.config, histories, k, **options, candidates=mask)


@partial(jax.jit, static_argnames=("graph", "k", "chunk"))
def _batch_top(
    graph: Graph,
    parameters: Any,
    constants: Any,
    rows: Array,
    inputs: ArrayLike,
    seen: Seen | None,
    candidates: Array | None,
    *,
    k: int,
    chunk: int | None,
) -> Array:
    """The model comes in parts: what a call hands over is arrays alone."""
    hidden = Parts(graph, parameters, constants).model().next_item_hidden(jnp.asarray(inputs), rows)
    return top_items(hidden, rows, k, chunk, seen, candidates)
