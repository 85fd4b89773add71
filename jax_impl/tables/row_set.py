"""The distinct rows that ids of a step name."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import as_varying, call, local_gpus, own_settings, varying_axes
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from ...kernels.plan.row_set import NO_ROW, RowSetPlan
from ..loss.working_set import WorkingSet


class RowSet(NamedTuple):
    """Distinct rows of a table, of a number that only the device knows.

    ``ids`` (T,) int32: the first ``count`` (1,) int32 are distinct and ascending, the rest repeat the last of them (0
    where there is none). ``places``, of the shape of the ids that were given and int32, says where in ``ids`` each of
    them is; negative ids stay as they are.
    """

    ids: Array
    places: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]


def row_set(ids: Array, bound: int | None = None, *, impl: str = "auto") -> RowSet:
    """The distinct ones of integer ``ids`` of any shape, below 2^31 - 1, by one sort.

    ``bound``: T, at least the number of distinct ids; by default as many as are given. Negative ids name no row. Places
    of ids beyond the bound are those of no row: T and above. ``impl``: "triton", "reference" (plain JAX), or "auto":
    decided when the call is lowered, triton on CUDA. Raises ArgumentTypeError for other than integers.
    """
    if not hasattr(ids, "dtype") or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ArgumentTypeError("ids", "an array of integers", getattr(ids, "dtype", type(ids).__name__))
    most = ids.size if bound is None else as_index("bound", bound)
    if most < 0:
        raise ArgumentValueError("bound", "an int of at least 0", bound)
    with own_settings():
        flat = jnp.asarray(ids).reshape(-1).astype(jnp.int32)
        keys, order = jax.lax.sort_key_val(
            jnp.where(flat >= 0, flat, NO_ROW),
            as_varying(jnp.arange(len(flat), dtype=jnp.int32), varying_axes(flat)),
            is_stable=True,
        )
        plain = partial(_by_reference, most=most)
        if impl == "reference" or not len(flat) or not most:
            found = plain(flat, keys, order)
        elif impl == "triton":
            found = _by_kernels(flat, keys, order, most=most)
        else:
            found = jax.lax.platform_dependent(flat, keys, order, cuda=partial(_by_kernels, most=most), default=plain)
        return RowSet(found[0], found[1].reshape(ids.shape), found[2])


def _by_reference(flat: Array, keys: Array, order: Array, *, most: int) -> tuple[Array, Array, Array]:
    """Ids, places and count, from the sorted keys of ids and where each came from."""
    is_id = keys != NO_ROW
    is_new = is_id & jnp.append(jnp.ones(min(len(flat), 1), bool), keys[1:] != keys[:-1])
    rank = jnp.cumsum(is_new, dtype=jnp.int32) - 1
    last = jnp.max(jnp.where(is_id, keys, 0), initial=0)
    found = jnp.full(most, last, jnp.int32).at[jnp.where(is_new, rank, most)].set(keys, mode="drop")
    places = jnp.zeros_like(rank).at[order].set(rank)
    places = jnp.where(flat >= 0, places, flat)
    return found, places, jnp.minimum(is_new.sum(dtype=jnp.int32), most).reshape(1)


def _launch(outs: Any, ins: Any, plan: RowSetPlan) -> None:
    from ...kernels.launch.row_set import launch_row_set

    launch_row_set(outs, ins, plan)


def _by_kernels(flat: Array, keys: Array, order: Array, *, most: int) -> tuple[Array, Array, Array]:
    plan = RowSetPlan(len(flat), most)
    for gpu in local_gpus():
        from ...kernels.launch.row_set import compile_row_set

        compile_row_set(plan, gpu)
    shapes = {each.name: jax.ShapeDtypeStruct(each.shape, each.dtype) for each in plan.buffers}
    outs = call(_launch, shapes, {"given": flat, "keys": keys, "order": order}, plan)
    return outs["ids"], outs["places"], outs["count"]


def rows_of(weight: Array, rows: RowSet | WorkingSet) -> Array:
    """The rows (T, D) float32 of a table (V, D)."""
    return weight.at[rows.ids].get(mode="clip", indices_are_sorted=True).astype(jnp.float32)
