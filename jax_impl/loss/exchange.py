"""Collectives of the devices that a catalog is sharded over, where their derivatives are not XLA's: every sum is in the
order of shards, so that two runs agree bit for bit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import own_settings
from .sums import sum_of_parts


def all_gather(rows: Array, axis: str) -> Array:
    """(P N, ...) the rows of all shards, one behind the other."""
    return jax.lax.all_gather(rows, axis, tiled=True)


def exchanged(parts: Array, axis: str) -> Array:
    """(P, ...) what every shard has for this one, of what each has for all; its gradient goes back the way it came."""
    return jax.lax.all_to_all(parts, axis, 0, 0, tiled=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(rows: Array, axis: str) -> Array:
    """``all_gather``, whose gradient is the sum of what all shards have for this one's rows, in fp32."""
    return all_gather(rows, axis)


def _forward(rows: Array, axis: str) -> tuple[Array, None]:
    return all_gather(rows, axis), None


@own_settings()
def _backward(axis: str, _: None, grad: Array) -> tuple[Array]:
    # a reduce-scatter, whose order of summing is the library's own business, taken apart
    parts = exchanged(grad.reshape(jax.lax.axis_size(axis), -1, *grad.shape[1:]), axis)
    return (sum_of_parts(parts.astype(jnp.float32)).astype(grad.dtype),)


gathered.defvjp(_forward, _backward)
