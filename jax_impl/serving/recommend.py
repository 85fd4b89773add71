"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.typing import ArrayLike

from ...recsys import SeenItems
from ...recsys.serving.candidates import Ids, candidates_of
from ...recsys.serving.evaluation import Histories, recommend_batches, require_full_lists
from ..models.parts import Graph, Parts
from ..models.sequence_model import SequenceModel
from .model_programs import ModelPrograms
from .ranking import Seen, item_scores, top_items


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
    """Returns the ids (rows, k) of the k best items after each history, as `recommend_with_scores` does.

    Raises ``ConfigError`` where a history leaves less than k items: no place is without one.
    """
    mask = candidates_of(model.config.num_items, candidates, excluded)
    rows = require_full_lists(histories, k, model.config.num_items, filter_seen=filter_seen, candidates=mask)
    options = {"filter_seen": filter_seen, "batch_size": batch_size, "chunk": chunk}
    return recommend_with_scores(model, rows, k, **options, candidates=candidates, excluded=excluded)[0]


def recommend_with_scores(
    model: SequenceModel,
    histories: Histories,
    k: int,
    *,
    filter_seen: bool = False,
    batch_size: int = 128,
    chunk: int | None = None,
    candidates: Ids | None = None,
    excluded: Ids | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Returns the ids (rows, k) of the k best items after each history and their scores (rows, k), as
    `recommend_batches` says, dropout off.

    ``candidates`` and ``excluded`` are ids of items (n,): only those, and none of these. A place for which no item is
    left holds ``NO_ITEM`` and the score -inf. Items are ranked by kernels on a GPU, else 8192 at once; a ``chunk``
    ranks so many at once in plain JAX. Scores are those of `item_scores`.
    """
    parts, batch_top = Parts.of(model), _PROGRAMS.of(model)
    rows = model.item_rows()
    mask = candidates_of(len(rows), candidates, excluded)
    chosen = None if mask is None else jnp.asarray(mask)

    def top(inputs: npt.NDArray[np.int32], seen: SeenItems | None) -> tuple[Array, Array]:
        return batch_top(*parts, rows, inputs, Seen.of(seen, len(inputs)), chosen, k=k, chunk=chunk)

    return recommend_batches(top, model.config, histories, k, filter_seen=filter_seen, batch_size=batch_size)


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
) -> tuple[Array, Array]:
    """The model comes in `Parts`: what a call hands over is arrays alone."""
    hidden = Parts(graph, parameters, constants).model().next_item_hidden(jnp.asarray(inputs), rows)
    items = top_items(hidden, rows, k, chunk, seen, candidates)
    return items, item_scores(hidden, rows, items)


_PROGRAMS = ModelPrograms(_batch_top, static_argnames=("graph", "k", "chunk"))
