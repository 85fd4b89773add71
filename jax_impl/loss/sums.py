"""Sums in an order of their own. XLA's compiler for GPUs times several programs of a reduction and takes the fastest,
so the last bit of a ``jnp.sum`` may differ between two compilations; additions written out it leaves as they are."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

_ADDED_AT_ONCE = 32


@jax.custom_jvp
def sum_of_rows(values: Array) -> Array:
    """The sum () of ``values`` (N,): every 32nd of them one after the other, and the same with these sums."""
    if not len(values):
        return jnp.zeros((), values.dtype)
    while len(values) > 1:
        width = min(_ADDED_AT_ONCE, len(values))
        length = -(-len(values) // width)
        parts = jnp.pad(values, (0, width * length - len(values))).reshape(width, length)
        # a fusion of two rounds would add up all in one thread
        values = jax.lax.optimization_barrier(sum_of_parts(parts))
    return values.reshape(())


@sum_of_rows.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_of_rows(*primals), jnp.sum(*tangents)


def sum_of_parts(parts: Array) -> Array:
    """The sum of few ``parts`` (P, ...) one after the other."""
    return functools.reduce(jnp.add, parts)
