"""Run as a script in a process of two devices, CPU's or GPUs: the JAX loss under shard_map is the sum of its shards'
losses, on a mesh under plain jit what it is on one device, and runs where its arrays are."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import (
    ArgumentError,
    PopularityNegatives,
    UniformNegatives,
    linear_cross_entropy,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
    update_frequencies,
)
from jax import Array
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

ROWS = 16  # of a shard
ITEMS = 50
SEED = 5
DATA = P("data")
COUNTS = np.arange(ITEMS)


def shard_loss(hidden: Array, table: Array, scale: Array, target: Array, seed: Any, impl: str) -> Array:
    loss = sampled_linear_cross_entropy(
        hidden, table, target, UniformNegatives(10, 16), seed=seed, reduction="sum", impl=impl, logit_scale=scale
    )
    assert isinstance(loss, Array)
    return loss


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), actual, expected)


def two_devices(**options: Any) -> Any:
    return jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], **options)


def sharded(impl: str, check_vma: bool, grad_inside: bool, *arrays: Array) -> Any:
    def own_loss(hidden: Array, table: Array, scale: Array, target: Array) -> Array:
        return shard_loss(hidden, table, scale, target, jax.lax.axis_index("data") + SEED, impl)

    def inside(hidden: Array, table: Array, scale: Array, target: Array) -> Any:
        loss, (of_hidden, *of_shared) = jax.value_and_grad(own_loss, (0, 1, 2))(hidden, table, scale, target)
        if not check_vma:  # else grad has summed what the copies of the table got
            of_shared = jax.lax.psum(of_shared, "data")
        return jax.lax.psum(loss, "data"), (of_hidden, *of_shared)

    def total(*arrays: Array) -> Array:
        return jax.lax.psum(own_loss(*arrays), "data")

    over_shards = partial(
        jax.shard_map,
        mesh=two_devices(axis_types=(AxisType.Auto,)),
        in_specs=(DATA, P(), P(), DATA),
        check_vma=check_vma,
    )
    if grad_inside:
        return jax.jit(over_shards(inside, out_specs=(P(), (DATA, P(), P()))))(*arrays)
    return jax.jit(jax.value_and_grad(over_shards(total, out_specs=P()), (0, 1, 2)))(*arrays)


def check_shard_map(impl: str, hidden: Array, table: Array, scale: Array, target: Array) -> None:
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
        for grad_inside in (True, False):
            assert_close(sharded(impl, check_vma, grad_inside, hidden, table, scale, target), expected)


def check_meshes(impl: str, hidden: Array, table: Array, target: Array) -> None:
    """Plain jit over arrays of a mesh, whose axes may be explicit; gradients and rows' losses lie like their arrays."""

    def full(hidden: Array, table: Array, target: Array) -> Array:
        return linear_cross_entropy(hidden, table, target, impl=impl)

    def popular(hidden: Array, table: Array, target: Array) -> Array:
        negatives = PopularityNegatives(COUNTS, 5, group_size=16)
        loss, lse = sampled_linear_cross_entropy(
            hidden, table, target, negatives, seed=1, reduction="none", impl=impl, return_lse=True
        )
        if explicit:
            assert jax.typeof(loss).sharding.spec == jax.typeof(lse).sharding.spec == jax.typeof(target).sharding.spec
        return (loss + lse).sum()

    def buckets(hidden: Array, table: Array, target: Array) -> Array:
        return scalable_linear_cross_entropy(
            hidden, table, target, n_buckets=2, bucket_size_x=8, bucket_size_y=8, seed=1, impl=impl
        )

    def mapped(hidden: Array, table: Array, target: Array) -> Array:
        loss = partial(sampled_linear_cross_entropy, negatives=UniformNegatives(10, 16), seed=1, impl=impl)
        return jax.vmap(loss, (0, None, 0))(hidden, table, target).sum()

    hidden, target = hidden.reshape(4, -1, hidden.shape[-1]), target.reshape(4, -1)

    def on_mesh(mesh: Any, **specs: Any) -> tuple[Array, ...]:
        whole = {"hidden": hidden, "table": table, "target": target}
        return tuple(jax.device_put(whole[name], NamedSharding(mesh, spec)) for name, spec in specs.items())

    explicit = False
    cases = (full, P(None, "data")), (popular, P("data")), (buckets, P()), (mapped, P())
    cases = cases[: 2 if impl == "triton" else None]  # in the interpreter each takes long enough
    wanted = {loss: jax.jit(jax.value_and_grad(loss, (0, 1)))(hidden, table, target) for loss, _ in cases}
    arrays = on_mesh(two_devices(axis_types=(AxisType.Auto,)), hidden=DATA, table=P("data"), target=DATA)
    assert_close(jax.jit(jax.value_and_grad(popular, (0, 1)))(*arrays), wanted[popular])
    explicit, mesh = True, two_devices()
    for loss, spec in cases:
        arrays = on_mesh(mesh, hidden=DATA, table=spec, target=DATA)
        got = jax.jit(jax.value_and_grad(loss, (0, 1)))(*arrays)
        assert_close(got, wanted[loss])
        for gradient, array in zip(got[1], arrays, strict=False):
            assert gradient.sharding.is_equivalent_to(array.sharding, array.ndim), loss
    arrays = on_mesh(mesh, hidden=DATA, table=P(None, "data"), target=DATA)
    assert_close(full(*arrays), wanted[full][0])
    with jax.set_mesh(mesh):
        assert_close(jax.value_and_grad(full, (0, 1))(*arrays), wanted[full])

    mesh = jax.make_mesh((2, 1), ("data", "model"), (AxisType.Explicit, AxisType.Auto), devices=jax.devices()[:2])
    arrays = on_mesh(mesh, hidden=DATA, table=P("model"), target=DATA)
    assert_close(jax.jit(jax.value_and_grad(popular, (0, 1)))(*arrays), wanted[popular])
    q = jnp.full(ITEMS, 1 / ITEMS, jnp.float32)
    assert_close(update_frequencies(q, arrays[2], rate=0.1), update_frequencies(q, target, rate=0.1))


def check_devices(impl: str, hidden: Array, table: Array, scale: Array, target: Array) -> None:
    first, second = jax.devices()[:2]
    with pytest.raises(ArgumentError, match=r"^linear_weight: .*device"):
        shard_loss(jax.device_put(hidden, first), jax.device_put(table, second), scale, target, 0, impl)

    def popular(hidden: Array, table: Array, target: Array) -> Array:
        return sampled_linear_cross_entropy(
            hidden, table, target, PopularityNegatives(COUNTS, 5, group_size=16), seed=1, impl=impl
        )  # type: ignore[return-value]

    want = jax.value_and_grad(popular, (0, 1))(hidden, table, target)
    arrays = jax.block_until_ready(jax.device_put((hidden, table, target), second))
    with jax.transfer_guard("disallow"):
        loss = popular(*arrays)
    assert loss.devices() == {second}
    for wrap in (jax.jit, lambda f: f):
        got = wrap(jax.value_and_grad(popular, (0, 1)))(*arrays)
        assert all(array.devices() == {second} for array in jax.tree.leaves(got))
        assert_close(got, want)


def main(impl: str) -> None:
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.standard_normal((n, 8)), jnp.float32) for n in (2 * ROWS, ITEMS))
    target, scale = jnp.arange(2 * ROWS), jnp.float32(0.7)
    check_shard_map(impl, hidden, table, scale, target)
    check_devices(impl, hidden, table, scale, target)
    check_meshes(impl, hidden, table, target)


if __name__ == "__main__":
    main(sys.argv[1])
    print("passed")
