"""JAX's calls on a sharded catalog: one shard's is the plain one, and what raises."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import (
    AllItems,
    ArgumentTypeError,
    ArgumentValueError,
    CatalogShard,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    PopularityNegatives,
    UniformNegatives,
    input_rows,
    sampled_linear_cross_entropy,
    working_set,
)
from jax import Array
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

ITEMS, ROWS, DIM = 23, 20, 8
CATALOG = CatalogShard(ITEMS, "shard")


def loss_of(negatives: Any, hidden: Array, table: Array, target: Any, **keywords: Any) -> Array:
    options = {"seed": 7, "catalog": CATALOG, "reduction": "none"} | keywords
    loss = sampled_linear_cross_entropy(hidden, table, target, negatives, **options)
    assert isinstance(loss, Array)
    return loss


def on_four(negatives: Any, table_rows: int = 6, rows: int = ROWS, **keywords: Any) -> None:
    """Trace a call of four shards, which need not be there."""
    mesh = AbstractMesh((4,), ("shard",), axis_types=(AxisType.Auto,))
    specs = P("shard")
    call = jax.shard_map(partial(loss_of, negatives, **keywords), mesh=mesh, in_specs=specs, out_specs=specs)
    shapes = ((4 * rows, DIM), jnp.float32), ((4 * table_rows, DIM), jnp.float32), ((4 * rows,), jnp.int32)
    jax.eval_shape(call, *(jax.ShapeDtypeStruct(*shape) for shape in shapes))


@pytest.mark.parametrize("negatives", [AllItems(), UniformNegatives(10, 16)])
def test_one_shard_is_the_plain_call(negatives: Any):
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.standard_normal((n, DIM)), jnp.float32) for n in (ROWS, ITEMS))
    target = jnp.asarray(rng.integers(0, ITEMS, ROWS), jnp.int32)
    mesh = jax.make_mesh((1,), ("shard",), (AxisType.Auto,), devices=jax.devices()[:1])
    specs = P("shard")
    one = jax.shard_map(partial(loss_of, negatives), mesh=mesh, in_specs=specs, out_specs=specs)
    plain = partial(loss_of, negatives, catalog=None)

    def gradients(function: Any) -> Any:
        step = jax.value_and_grad(lambda hidden, table: function(hidden, table, target).sum(), (0, 1))
        return jax.jit(step)(hidden, table)

    jax.tree.map(np.testing.assert_array_equal, gradients(one), gradients(plain))


def test_what_one_shard_s_inputs_embed_are_rows_of_the_table():
    catalog = CatalogShard(300, "shard")
    table = jnp.asarray(np.random.default_rng(0).standard_normal((300, DIM)), jnp.float32)
    inputs = jnp.asarray([[4, -1, 299], [0, 4, -1]])

    def embedded(table: Array, dtype: Any = None) -> Array:
        own = working_set(
            UniformNegatives(8, 16), jnp.arange(3), num_items=300, seed=1, inputs=inputs, catalog=catalog
        )  # fmt: skip
        return input_rows(table[own.ids], own, catalog=catalog, dtype=dtype)

    mesh = jax.make_mesh((1,), ("shard",), (AxisType.Auto,), devices=jax.devices()[:1])
    one = jax.shard_map(embedded, mesh=mesh, in_specs=P("shard"), out_specs=P("shard"))
    np.testing.assert_array_equal(one(table), jnp.where(inputs[..., None] >= 0, table[inputs], 0.0))
    assert jax.grad(lambda table: one(table).sum())(table).sum() == 4 * DIM
    half = jax.shard_map(partial(embedded, dtype="bfloat16"), mesh=mesh, in_specs=P("shard"), out_specs=P("shard"))
    assert half(table).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("negatives", "keywords", "error", "message"),
    [
        (AllItems(), {"catalog": "shard"}, ArgumentTypeError, "^catalog: expected a CatalogShard or None, got str"),
        (AllItems(), {"catalog": CatalogShard(ITEMS, "x")}, ArgumentValueError, r"^catalog: .*shard_map.* got 'x'"),
        (AllItems(), {"catalog": CatalogShard(3, "shard")}, ArgumentValueError, "^catalog: .* each of 4 shards, got 3"),
        (AllItems(), {"table_rows": 5}, ArgumentValueError, "^linear_weight: expected the 6 rows .* got"),
        (np.zeros(3, np.int32), {"seed": None}, ArgumentTypeError, "^negatives: .* beside a sharded catalog, got nd"),
        (HardNegatives(9, 4, 16), {}, ArgumentTypeError, "^negatives: .* shards of a catalog can share, got Hard"),
        (UniformNegatives(3, 16), {}, ArgumentValueError, "^negatives: expected num_negatives of 4 or more.* got 3"),
        (UniformNegatives(9, 16), {"seed": None}, ArgumentTypeError, "^seed: "),
        (InBatchNegatives(16), {}, ArgumentTypeError, "^log_q: "),
        (PopularityNegatives([1, 1, *[0] * 21], 9, group_size=16), {}, ArgumentValueError, "^negatives: .* in shard 2"),
    ],
)  # fmt: skip
def test_errors(negatives: Any, keywords: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        on_four(negatives, **keywords)


def test_traces():
    """What is right is traced, shards of unequal sizes and shares, and no rows at all, too."""
    for negatives in (AllItems(), UniformNegatives(10, 16), LogUniformNegatives(8, 16)):
        for rows in (ROWS, 0):
            on_four(negatives, rows=rows)


def test_working_sets_are_of_draws():
    def call(target: Array) -> Array:
        return working_set(AllItems(), target, num_items=800, seed=1, catalog=CatalogShard(800, "shard")).target

    mesh = AbstractMesh((4,), ("shard",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(call, mesh=mesh, in_specs=P("shard"), out_specs=P("shard"))
    with pytest.raises(ArgumentTypeError, match=r"^negatives: "):
        jax.eval_shape(mapped, jax.ShapeDtypeStruct((80,), jnp.int32))


def test_outside_of_shard_map():
    with pytest.raises(ArgumentValueError, match=r"^catalog: .* inside jax.shard_map"):
        loss_of(AllItems(), jnp.zeros((ROWS, DIM)), jnp.zeros((6, DIM)), jnp.zeros(ROWS, jnp.int32))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, "shard"), ArgumentValueError, "^num_items: "),
        ((2.5, "shard"), ArgumentTypeError, "^num_items: "),
        ((9, ("shard",)), ArgumentTypeError, "^axis_name: .* got tuple"),
    ],
)
def test_a_catalog_of_a_shard(arguments: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        CatalogShard(*arguments)
