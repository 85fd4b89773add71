"""Ranks and top items over the full catalog, scored on the device in chunks: (B, chunk) scores exist, never (B, V)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...recsys import NO_ITEM, SeenItems

Carry = TypeVar("Carry")
Top = tuple[Array, Array]

CHUNK = 8192
"""Catalog items scored at once: memory is rows x CHUNK scores, whatever the catalog's size."""

_NOWHERE = np.iinfo(np.int32).max  # an id beyond every chunk, whose update is dropped


class Seen(NamedTuple):
    """`SeenItems` by chunk of the catalog: ``row`` and ``item`` (chunks, W) int32, filled up with ids that are nowhere.

    W is a power of two, so that few of them are compiled.
    """

    row: ArrayLike
    item: ArrayLike

    @classmethod
    def of(cls, seen: SeenItems | None, num_items: int, chunk: int = CHUNK) -> Seen | None:
        """Arranges a batch's seen items; None, where all items compete, stays None."""
        if seen is None:
            return None
        starts = seen.starts(num_items, chunk)
        counts = np.diff(starts)
        width = 1 << int(counts.max(initial=1) - 1).bit_length()
        place = starts[:-1, None] + np.arange(width)
        filled = np.arange(width) < counts[:, None]
        row, item = np.zeros(place.shape, np.int32), np.full(place.shape, _NOWHERE, np.int32)
        row[filled], item[filled] = seen.row[place[filled]], seen.item[place[filled]]
        return cls(row, item)


@partial(jax.jit, static_argnums=3)
def target_ranks(hidden: Array, table: Array, target: Array, chunk: int = CHUNK, seen: Seen | None = None) -> Array:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int32, 1 is best, in float32.

    ``rank = 1 + #(score > target's) + #(score == target's and id < target)`` over the items that ``seen`` does not
    leave out, NaN above every number, and V + 1 for a NaN target score: the rule of ``recsys.target_ranks``. ``hidden``
    (B, D), ``table`` (V, D), ``target`` (B,); negative targets mark rows that only fill the batch, and their rank means
    nothing.
    """
    return rank_and_top(hidden, table, target, 0, chunk, seen)[0]


@partial(jax.jit, static_argnums=(3, 4))
def rank_and_top(
    hidden: Array, table: Array, target: Array, k: int, chunk: int = CHUNK, seen: Seen | None = None
) -> tuple[Array, Array]:
    """`target_ranks` (B,) and `top_items` (B, k) of the same scores."""
    target = jnp.maximum(target, 0)[:, None]

    # Scored in the same products as its rivals, so that equal rows of the table tie exactly.
    def find_target(target_score: Array, index: Array | int, ids: Array, scores: Array) -> Array:
        column = target - ids[0]
        here = (column >= 0) & (column < len(ids))
        found = jnp.take_along_axis(scores, jnp.clip(column, 0, len(ids) - 1), axis=1)
        return jnp.where(here, found, target_score)

    def count_and_merge(carry: tuple[Array, Top], index: Array | int, ids: Array, scores: Array) -> tuple[Array, Top]:
        rank, best = carry
        ahead = (scores > target_score) | jnp.isnan(scores) | ((scores == target_score) & (ids < target))
        rank += _leave_out(ahead, seen, index, ids, value=False).sum(axis=1, dtype=jnp.int32)
        return rank, _merge(best, seen, index, ids, scores) if k else best

    target_score = fold_catalog(find_target, jnp.zeros(target.shape, jnp.float32), hidden, table, chunk)
    start = jnp.ones(len(target), jnp.int32), _no_items(len(hidden), k)
    rank, best = fold_catalog(count_and_merge, start, hidden, table, chunk)
    return jnp.where(jnp.isnan(target_score[:, 0]), len(table) + 1, rank), _items(best)


@partial(jax.jit, static_argnums=(2, 3))
def top_items(hidden: Array, table: Array, k: int, chunk: int = CHUNK, seen: Seen | None = None) -> Array:
    """Ids (B, k) int32 of the highest scores ``hidden @ table.T``, ties by lower id, NaN last.

    Items that ``seen`` leaves out are not among them; ``NO_ITEM`` fills places for which no other item is left.
    """

    def merge(best: Top, index: Array | int, ids: Array, scores: Array) -> Top:
        return _merge(best, seen, index, ids, scores)

    return _items(fold_catalog(merge, _no_items(len(hidden), k), hidden, table, chunk))


def fold_catalog(
    fold: Callable[[Carry, Array | int, Array, Array], Carry], carry: Carry, hidden: Array, table: Array, chunk: int
) -> Carry:
    """Folds ``carry = fold(carry, index, ids (C,), scores (B, C))`` over the chunks of the catalog in order, float32, C
    <= chunk.

    Full chunks share one compiled loop body; the remainder, of another shape, follows it.
    """

    def step(carry: Carry, index: Array | int, width: int) -> Carry:
        begin = index * chunk
        rows = jax.lax.dynamic_slice_in_dim(table, begin, width).astype(jnp.float32)
        scores = jnp.matmul(hidden.astype(jnp.float32), rows.T, precision="highest")
        return fold(carry, index, begin + jnp.arange(width), scores)

    full, remainder = divmod(len(table), chunk)
    if full:
        carry = jax.lax.fori_loop(0, full, lambda index, state: step(state, index, chunk), carry)
    return step(carry, full, remainder) if remainder else carry


def _leave_out(values: Array, seen: Seen | None, index: Array | int, ids: Array, value: float) -> Array:
    """``values`` (B, C) of chunk ``index`` with those of seen items set to ``value``."""
    if seen is None:
        return values
    row, item = (jnp.asarray(pairs)[index] for pairs in seen)
    return values.at[row, item - ids[0]].set(value, mode="drop")


def _no_items(rows: int, k: int) -> Top:
    return jnp.full((rows, k), -jnp.inf, jnp.float32), jnp.full((rows, k), NO_ITEM, jnp.int32)


def _merge(best: Top, seen: Seen | None, index: Array | int, ids: Array, scores: Array) -> Top:
    """The scores and ids (B, k) of the best items so far, this chunk's among them."""
    # Empty places and seen items lose to every item, because an item's score is kept above -inf.
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest)
    scores = _leave_out(scores, seen, index, ids, value=-jnp.inf)
    # top_k puts the earlier of equal scores first, and the earlier one has the lower id.
    all_scores = jnp.concatenate([best[0], scores], axis=1)
    all_ids = jnp.concatenate([best[1], jnp.broadcast_to(ids, scores.shape)], axis=1)
    top_scores, places = jax.lax.top_k(all_scores, best[0].shape[1])
    return top_scores, jnp.take_along_axis(all_ids, places, axis=1)


def _items(best: Top) -> Array:
    return jnp.where(best[0] == -jnp.inf, NO_ITEM, best[1])
