"""Rows of all shards of a catalog, gathered on each, and where in its own part their targets are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import varying_axes
from ...kernels.draws.permutation import fold_words
from ...kernels.negatives.arguments import IGNORED
from ...kernels.plan.problem import ELSEWHERE
from .candidates import arithmetic
from .catalog_shard import CatalogShard
from .exchange import all_gather


def manual_axes(axis: str) -> frozenset[str]:
    """The axis as one that values vary over; none where ``jax.shard_map`` does not keep count of these."""
    return varying_axes(jax.lax.axis_index(axis))


def places_in(items: Array, catalog: CatalogShard, other: int) -> Array:
    """Where in this shard items are, ``other`` of those that it does not have."""
    axis = catalog.axis_name
    number = jax.lax.axis_size(axis)
    return jnp.where(items % number == jax.lax.axis_index(axis), items // number, other)


def target_places(target: Array, counts: Array, catalog: CatalogShard) -> Array:
    """(P N,) int32 where in this shard the targets of all shards' rows are, ELSEWHERE, IGNORED, or behind it for what
    is no item; ``target`` (N,) is its own."""
    every, counted = (all_gather(rows, catalog.axis_name) for rows in (target, counts))
    is_item = (every >= 0) & (every < catalog.num_items)
    behind = catalog.rows(jax.lax.axis_size(catalog.axis_name))
    return jnp.where(counted, jnp.where(is_item, places_in(every, catalog, ELSEWHERE), behind), IGNORED)


def owners(target: Array, counts: Array, catalog: CatalogShard) -> Array:
    """Which shard has each target; -1 of rows to leave out."""
    return jnp.where(counts, target % jax.lax.axis_size(catalog.axis_name), -1)


def folded_words(words: Array, catalog: CatalogShard) -> Array:
    """``fold_seed`` of a seed's words (low, high) by the shard's number, the same."""
    index = jax.lax.axis_index(catalog.axis_name)
    xp = arithmetic(varying_axes((words, index)))
    low, high = jax.lax.bitcast_convert_type(words, jnp.uint32)
    high, low = fold_words(xp, (xp.u32(high), xp.u32(low)), xp.u32(index))
    return jax.lax.bitcast_convert_type(jnp.stack([low, high]), jnp.int32)
