"""The distinct rows that ids of a step name."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import own_settings
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from ..loss.working_set import WorkingSet

_NONE = 2**31 - 1  # sorts behind every id


class RowSet(NamedTuple):
    """Distinct rows of a table, of a number that only the device knows.

    ``ids`` (T,) int32: the first ``count`` (1,) int32 are distinct and ascending, the rest repeat the last of them (0
    where there is none). ``places``, of the shape of the ids that were given and int32, says where in ``ids`` each of
    them is; negative ids stay as they are.
    """

    ids: Array
    places: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]


def row_set(ids: Array, bound: int | None = None) -> RowSet:
    """The distinct ones of integer ``ids`` of any shape, below 2^31 - 1, by one sort.

    ``bound``: T, at least the number of distinct ids; by default as many as are given. Negative ids name no row. Places
    of ids beyond the bound are those of no row: T and above. Raises ArgumentTypeError for other than integers.
    """
    if not hasattr(ids, "dtype") or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ArgumentTypeError("ids", "an array of integers", getattr(ids, "dtype", type(ids).__name__))
    most = ids.size if bound is None else as_index("bound", bound)
    if most < 0:
        raise ArgumentValueError("bound", "an int of at least 0", bound)
    with own_settings():
        flat = jnp.asarray(ids).reshape(-1).astype(jnp.int32)
        keys, order = jax.lax.sort_key_val(
            jnp.where(flat >= 0, flat, _NONE), jnp.arange(len(flat), dtype=jnp.int32), is_stable=True
        )
        is_id = keys != _NONE
        is_new = is_id & jnp.append(jnp.ones(min(len(flat), 1), bool), keys[1:] != keys[:-1])
        rank = jnp.cumsum(is_new, dtype=jnp.int32) - 1
        last = jnp.max(jnp.where(is_id, keys, 0), initial=0)
        found = jnp.full(most, last, jnp.int32).at[jnp.where(is_new, rank, most)].set(keys, mode="drop")
        places = jnp.zeros_like(rank).at[order].set(rank)
        places = jnp.where(flat >= 0, places, flat).reshape(ids.shape)
        return RowSet(found, places, jnp.minimum(is_new.sum(dtype=jnp.int32), most).reshape(1))


def rows_of(weight: Array, rows: RowSet | WorkingSet) -> Array:
    """The rows (T, D) float32 of a table (V, D)."""
    return weight.at[rows.ids].get(mode="clip", indices_are_sorted=True).astype(jnp.float32)
