"""JAX's collectives of a step: counted in its traced program, or replaced by local copies of their shapes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from .cases import Case

_GATHERS, _SUMS = ("all_gather", "all_gather_invariant"), ("psum", "psum_invariant", "psum2")


def traffic_of(program: Any, devices: int) -> dict[str, float]:
    """Bytes that a device sends to the others in a traced ``program``, forward and backward: of the sharded catalog's
    exchange, and of the all-reduce of dense gradients, as a ring sends them. Raises ValueError for a collective that
    it does not know."""
    found, others = {"exchange_bytes": 0.0, "dense_bytes": 0.0}, devices - 1
    for name, sent in _collectives(program):
        if name in _GATHERS:
            found["exchange_bytes"] += sent * others
        elif name == "all_to_all":
            found["exchange_bytes"] += sent * others / devices
        elif name in _SUMS:
            found["dense_bytes"] += 2 * sent * others / devices
        else:
            raise ValueError(f"program: expected gathers, all-to-alls and sums, got {name}")
    return found


def _collectives(program: Any) -> Iterator[tuple[str, int]]:
    """The name and the bytes given of each."""
    jaxpr = program.jaxpr if isinstance(program, core.ClosedJaxpr) else program
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in (*_GATHERS, *_SUMS, "all_to_all", "reduce_scatter", "ppermute", "pmax", "pmin"):
            yield name, sum(math.prod(each.aval.shape) * each.aval.dtype.itemsize for each in equation.invars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from _collectives(inner)


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


@contextlib.contextmanager
def local(case: Case) -> Iterator[None]:
    """Has what is traced inside copy on each device what it would exchange. The items that others would send are its
    own, moved on by their share of the catalog, so that as many rows are touched as with others' batches."""
    held = jax.lax.all_gather, jax.lax.all_to_all, jax.lax.psum

    def gathered(rows: Array, axis: str, *, tiled: bool) -> Array:
        assert tiled
        parts = jnp.broadcast_to(rows, (case.gpus, *rows.shape))
        if rows.dtype == jnp.int32:
            moved = jnp.arange(case.gpus, dtype=jnp.int32) * (case.items // case.gpus)
            moved = moved.reshape(-1, *[1] * rows.ndim)
            # items stay below the catalog's size without a sum that would pass 2^31
            parts = jnp.where(parts >= case.items - moved, parts - (case.items - moved), parts + moved)
        return jax.lax.optimization_barrier(parts.reshape(-1, *rows.shape[1:]))

    def exchanged(parts: Array, axis: str, split: int, concatenated: int, *, tiled: bool) -> Array:
        assert (split, concatenated, tiled) == (0, 0, True)
        return jax.lax.optimization_barrier(parts)

    def summed(value: Any, axis: str) -> Any:
        # of a number it is that of the devices, as where the axis's size is asked for
        return value * case.gpus if isinstance(value, int) else jax.lax.optimization_barrier(value)

    replaced: Any = jax.lax
    replaced.all_gather, replaced.all_to_all, replaced.psum = gathered, exchanged, summed
    # what has been traced with the others would be taken again
    jax.clear_caches()
    try:
        yield
    finally:
        replaced.all_gather, replaced.all_to_all, replaced.psum = held
        jax.clear_caches()
