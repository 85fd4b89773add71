"""Batches of held-out items ranked by devices that share the item table: each finds the best of its own items, and the
lists of all are merged. Scores of other devices' items, and their rows, are nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ...recsys import NO_ITEM
from ..models.parts import Graph, Parts
from ..ranks import AXIS
from .batch_ranking import Batches, with_lists
from .ranking import Seen, item_scores, top_items


def rank_batches_on_shards(
    graph: Graph,
    parameters: Any,
    constants: Any,
    counts: Array,
    batches: Batches,
    *,
    cutoffs: tuple[int, ...],
    num_items: int,
) -> tuple[Array, Array]:
    """`rank_batches` inside ``jax.shard_map``, where the model has R rows of this shard alone and ``counts`` (cutoffs,
    R) are of its items. A target's rank is its place in its list, V + 1 where it is not among the first of it that
    ``cutoffs`` count."""
    number, index = jax.lax.axis_size(AXIS), jax.lax.axis_index(AXIS)
    rows = Parts(graph, parameters, constants).model().item_rows()
    places = jnp.arange(len(rows), dtype=jnp.int32)
    # the last row of a shard may be no item's
    candidates = places * number + index < num_items if num_items % number else None
    most = max(cutoffs)

    def rank(counts: Array, batch: Batches) -> tuple[Array, Array]:
        inputs, target, num_targets, seen = batch
        hidden = Parts(graph, parameters, constants).model().next_item_hidden(inputs, _embedded(inputs, rows))
        own = top_items(hidden, rows, min(most, len(rows)), None, _own(seen, len(rows)), candidates)
        items = jnp.where(own == NO_ITEM, NO_ITEM, own * number + index)
        lists = item_scores(hidden, rows, own), items
        scores, items = (jax.lax.all_gather(each, AXIS, axis=1, tiled=True) for each in lists)
        scores, top = merged(scores, items, most)
        is_target = (top == target[:, None]) & ~jnp.isnan(scores)
        ranks = jnp.where(is_target.any(1), is_target.argmax(1).astype(jnp.int32) + 1, num_items + 1)
        return with_lists(counts, top, _places(top, len(rows)), num_targets, cutoffs), ranks

    return jax.lax.scan(rank, counts, batches)


def merged(scores: Array, items: Array, k: int) -> tuple[Array, Array]:
    """The scores and ids (B, k) of the best of ``items`` (B, any), which differ, by their ``scores``: ties by lower id,
    NaN behind all numbers, and then ``NO_ITEM``, which also fills places for which there is none."""
    missing = [(0, 0), (0, max(k - items.shape[1], 0))]
    scores, items = jnp.pad(scores, missing), jnp.pad(items, missing, constant_values=NO_ITEM)
    lowest = jnp.finfo(jnp.float32).min
    order = jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest)
    order = jnp.where(items == NO_ITEM, -jnp.inf, order)
    _, items, scores = jax.lax.sort((-order, items, scores), num_keys=2)
    return scores[:, :k], items[:, :k]


def _embedded(inputs: Array, rows: Array) -> Array:
    """The items' rows (B, L, D) of ``inputs`` (B, L), zeros of negative ids, of which each shard has some."""
    own = rows.at[_places(inputs, len(rows))].get(mode="fill", fill_value=0).astype(jnp.float32)
    return jax.lax.psum(own, AXIS)  # of which one is not zero


def _own(seen: Seen | None, size: int) -> Seen | None:
    """The pairs whose items the shard has, by their places among its ``size``, each row's in ascending order; in place
    of the others ``size``, which is no item."""
    if seen is None:
        return None
    row, item = jax.lax.sort((jnp.asarray(seen.row), _places(jnp.asarray(seen.item), size)), num_keys=2)
    return replace(seen, row=row, item=item)


def _places(items: Array, size: int) -> Array:
    """Where in this shard ``items`` are, ``size`` of those that it does not have and of negative ids."""
    number = jax.lax.axis_size(AXIS)
    return jnp.where((items >= 0) & (items % number == jax.lax.axis_index(AXIS)), items // number, size)
