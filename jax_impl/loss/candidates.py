"""Tiles of rows that share candidates, and which those are, in plain JAX: the draws of
``kernels.draws``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import as_varying, varying_axes
from ...kernels.draws.lists import ITEMS, ROWS
from ...kernels.draws.permutation import Arithmetic, Seed
from ...kernels.draws.uniform import row_places
from ...kernels.plan.problem import Problem, ceil_div
from .operands import Operands

CHUNK_ELEMENTS = 1 << 22  # numbers that a chunk of rows may take


def _walk(step: Callable[[Array], Array], x: Array, is_outside: Callable[[Array], Array]) -> Array:
    return jax.lax.while_loop(lambda y: is_outside(y).any(), lambda y: jnp.where(is_outside(y), step(y), y), x)


def _repeat(count: int, step: Callable[[Array, Any], Any], state: Any) -> Any:
    return jax.lax.fori_loop(0, count, step, state)


def arithmetic(axes: frozenset[str] = frozenset()) -> Arithmetic:
    """JAX's words are uint32; under shard_map all vary over its ``axes``, since a loop's state may not start to."""

    def words(value: Any) -> Array:
        return as_varying(jnp.asarray(value, jnp.uint32), axes)

    return Arithmetic(u32=words, where=jnp.where, walk=_walk, repeat=_repeat)


class Layout(NamedTuple):
    """Tiles of rows that share candidates."""

    rows: Array  # (tiles, G), -1 where a place is empty
    places: Array  # (N,) the place of each row in the flattened tiles
    tiles_a_chunk: int
    ids: Callable[
        [Array], Array
    ]  # tiles (T,) -> candidates (T, K) or (1, K), of chosen lists what they are chosen from


def _drawn_layout(x: Operands, p: Problem) -> Layout:
    counted = x.target != p.ignore_index
    words = jax.lax.bitcast_convert_type(x.seed, jnp.uint32)
    seed = words[1], words[0]
    places = jnp.maximum(jnp.cumsum(counted, dtype=jnp.int32) - 1, 0)
    xp, group = arithmetic(varying_axes(x)), p.group_size
    total = jnp.maximum(counted.sum(dtype=jnp.int32), 1)
    places = row_places(xp, seed, places, total, p.shuffle_rows).astype(jnp.int32)
    tiles = ceil_div(p.num_rows, group)
    empty = jnp.full(tiles * group, -1, jnp.int32)
    rows = empty.at[jnp.where(counted, places, tiles * group)].set(jnp.arange(p.num_rows, dtype=jnp.int32), mode="drop")
    rows = rows.reshape(tiles, group)
    per_tile = (p.lists.columns if p.lists else p.negatives) * (p.dim + 1 + group)
    return Layout(
        rows, places, max(1, CHUNK_ELEMENTS // per_tile), lambda index: _tile_ids(x, xp, seed, rows, index, p)
    )


def _tile_ids(x: Operands, xp: Arithmetic, seed: Seed, rows: Array, tiles: Array, p: Problem) -> Array:
    """The candidates (T, K) of tiles."""
    if p.draw.given:
        assert x.ids is not None
        return x.ids[: p.given_places].reshape(p.num_groups, -1)[tiles, : p.negatives]
    if p.draws is not None:
        return p.draws.items(xp, seed, tiles).astype(jnp.int32)
    if p.lists is None or not p.draw.draws_lists:
        assert x.ids is not None
        return x.ids[tiles]
    ends = iter(() if x.slot_ends is None else x.slot_ends.reshape(-1, p.num_items))
    parts = []
    for source, drawn in p.lists.drawn(xp, seed, tiles):
        if source == ROWS:
            target = x.target[jnp.maximum(rows[tiles], 0)]
            is_item = (rows[tiles] >= 0) & (target >= 0) & (target < p.num_items)
            parts.append(jnp.where(is_item, target, -1))
        else:
            drawn = drawn.astype(jnp.int32)  # type: ignore[union-attr]
            parts.append(
                drawn if source == ITEMS else jnp.searchsorted(next(ends), drawn, side="right").astype(jnp.int32)
            )
    return jnp.concatenate(parts, 1)


def layout_of(x: Operands, p: Problem) -> Layout:
    """Where each row is among the tiles, and what these have as candidates."""
    if p.draws is not None or p.mode == "group_ids":
        return _drawn_layout(x, p)
    ids, group, tiles_a_chunk = x.ids, 1, 1
    if ids is not None and ids.ndim == 2:
        tiles_a_chunk = max(1, CHUNK_ELEMENTS // (p.negatives * (p.dim + 1)))
        candidates = ids.__getitem__
    else:
        shared = jnp.arange(p.num_items, dtype=jnp.int32) if ids is None else ids
        group = min(p.num_rows, max(1, CHUNK_ELEMENTS // max(p.negatives, p.dim)))
        candidates = lambda tiles: shared[None]  # noqa: E731
    tiles = ceil_div(p.num_rows, group)
    place = jnp.arange(tiles * group, dtype=jnp.int32)
    rows = jnp.where((place < p.num_rows) & (x.target[jnp.minimum(place, p.num_rows - 1)] != p.ignore_index), place, -1)
    return Layout(rows.reshape(tiles, group), place[: p.num_rows], tiles_a_chunk, candidates)


def in_history(x: Operands, users: Array, ids: Array, p: Problem) -> Array:
    """Whether each id is one of the user's own items, by bisection; shapes broadcast."""
    assert p.history
    assert x.history_offsets is not None
    assert x.history_items is not None
    if p.history.num_known == 0:
        return jnp.zeros(jnp.broadcast_shapes(users.shape, ids.shape), bool)
    ids = ids if x.row_ids is None else x.row_ids[ids]
    items = x.history_items
    first, end = x.history_offsets[users], x.history_offsets[users + 1]

    def step(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        behind = (low < high) & (items[middle] < ids)
        return jnp.where(behind, middle + 1, low), jnp.where((low < high) & ~behind, middle, high)

    start = first + ids * 0, end + ids * 0
    low, _ = jax.lax.fori_loop(0, p.history.num_known.bit_length(), step, start)
    return (low < end) & (items[jnp.minimum(low, p.history.num_known - 1)] == ids)
