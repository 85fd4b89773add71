"""Run as a script in a process of two CPU devices: the JAX loss under shard_map is the sum of its shards' losses."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import ArgumentError, UniformNegatives, sampled_linear_cross_entropy
from jax import Array
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

ROWS = 16  # of a shard
SEED = 5
DATA = P("data")


def shard_loss(hidden: Array, table: Array, scale: Array, target: Array, seed: Any, impl: str) -> Array:
    loss = sampled_linear_cross_entropy(
        hidden, table, target, UniformNegatives(10, 16), seed=seed, reduction="sum", impl=impl, logit_scale=scale
    )
    assert isinstance(loss, Array)
    return loss


def sharded(impl: str, check_vma: bool, *arrays: Array) -> Any:
    def run(hidden: Array, table: Array, scale: Array, target: Array) -> Any:
        seed = jax.lax.axis_index("data") + SEED
        loss, (of_hidden, of_table, of_scale) = jax.value_and_grad(shard_loss, (0, 1, 2))(
            hidden, table, scale, target, seed, impl
        )
        if not check_vma:  # else grad has summed what the copies of the table got
            of_table, of_scale = jax.lax.psum((of_table, of_scale), "data")
        return jax.lax.psum(loss, "data"), (of_hidden, of_table, of_scale)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    outs = P(), (DATA, P(), P())
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(DATA, P(), P(), DATA), out_specs=outs, check_vma=check_vma))(
        *arrays
    )


def main(impl: str) -> None:
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.standard_normal((n, 8)), jnp.float32) for n in (2 * ROWS, 50))
    target, scale = jnp.arange(2 * ROWS), jnp.float32(0.7)

    value_and_grad = jax.jit(jax.value_and_grad(shard_loss, (0, 1, 2)), static_argnums=5)
    (loss, grads), (other_loss, other_grads) = (
        value_and_grad(hidden[rows], table, scale, target[rows], SEED + shard, impl)
        for shard, rows in enumerate((slice(0, ROWS), slice(ROWS, None)))
    )
    expected = (
        loss + other_loss,
        (jnp.concatenate([grads[0], other_grads[0]]), grads[1] + other_grads[1], grads[2] + other_grads[2]),
    )
    for check_vma in (True, False):
        actual = sharded(impl, check_vma, hidden, table, scale, target)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), actual, expected)

    first, second = jax.devices()
    with pytest.raises(ArgumentError, match=r"^linear_weight: .*device"):
        shard_loss(jax.device_put(hidden, first), jax.device_put(table, second), scale, target, 0, impl)


if __name__ == "__main__":
    main(sys.argv[1])
    print("passed")
