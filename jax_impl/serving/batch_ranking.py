"""Batches of held-out items ranked in one program: their ranks, and how many lists have each item."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ...recsys import NO_ITEM
from ..models.parts import Graph, Parts
from .ranking import Seen, rank_and_top

Batches = tuple[Any, Any, Any, Seen | None]
"""Of several: the inputs (batches, B, L), the targets (batches, B), how many rows of each (batches,) are no filling,
and its seen items."""


def rank_batches(
    graph: Graph,
    parameters: Any,
    constants: Any,
    candidates: Array | None,
    counts: Array,
    batches: Batches,
    *,
    cutoffs: tuple[int, ...],
    chunk: int | None,
) -> tuple[Array, Array]:
    """``counts`` (cutoffs, V) with the lists of batches, and the ranks (batches, B) of their targets.

    The model comes in `Parts`: what a call hands over is arrays alone.
    """
    rows = Parts(graph, parameters, constants).model().item_rows()

    def rank(counts: Array, batch: Batches) -> tuple[Array, Array]:
        inputs, target, num_targets, seen = batch
        hidden = Parts(graph, parameters, constants).model().next_item_hidden(inputs, rows)
        ranks, top = rank_and_top(hidden, rows, target, max(cutoffs), chunk, seen, candidates)
        return with_lists(counts, top, top, num_targets, cutoffs), ranks

    return jax.lax.scan(rank, counts, batches)


def with_lists(counts: Array, top: Array, places: Array, num_targets: Array, cutoffs: tuple[int, ...]) -> Array:
    """``counts`` (cutoffs, R) with the first ``num_targets`` lists ``top`` (B, k) of items, whose ``places`` (B, k)
    among the counts are R where they are none."""
    is_counted = (jnp.arange(len(top)) < num_targets)[:, None] & (top != NO_ITEM)
    items = jnp.where(is_counted, places, counts.shape[1])
    more = [count.at[items[:, :k]].add(1, mode="drop") for count, k in zip(counts, cutoffs, strict=True)]
    return jnp.stack(more)
