"""JAX's item tables and their optimizers: trajectories against float64 and PyTorch's, transformations, memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from cce_minus.jax_impl import ItemTable, rows_of
from cce_minus.jax_impl.tables.optimizers import LazyAdam, PartialRowWiseAdam, RowWiseAdagrad
from cce_minus.jax_impl.tables.row_set import row_set
from cce_minus.kernels import ArgumentTypeError, ArgumentValueError
from cce_minus.torch_impl.tables import optimizers as torch_optimizers
from cce_minus.torch_impl.tables.item_table import ItemTable as TorchTable
from flax import nnx

from tests.tables import test_torch_optimizers as twin
from tests.tables.oracle import Table, updated

OPTIMIZERS = {"rowwise_adagrad": RowWiseAdagrad, "partial_rowwise_adam": PartialRowWiseAdam, "lazy_adam": LazyAdam}
ITEMS, DIM = twin.ITEMS, twin.DIM


def start(dtype: Any = jnp.float32) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(0.02 * rng.standard_normal((ITEMS, DIM)), jnp.float32).astype(dtype)


def steps_of(number: int) -> tuple[jax.Array, jax.Array]:
    """Ids (steps, 17), which repeat and have holes, and a factor for each."""
    ids, factors = zip(*twin.steps_of(number), strict=True)
    return jnp.stack([jnp.asarray(i.cpu().numpy()) for i in ids]), jnp.stack(
        [jnp.asarray(f.cpu().numpy()) for f in factors]
    )


def train(optimizer: Any, weight: jax.Array, ids: jax.Array, factors: jax.Array) -> tuple[jax.Array, Any]:
    """All steps in a scan over a donated table."""

    def step(carry: Any, operands: Any) -> Any:
        weight, state = carry
        given, factor = operands
        rows = row_set(given)

        def loss(values: jax.Array) -> jax.Array:
            read = jnp.where((rows.places >= 0)[:, None], values[jnp.maximum(rows.places, 0)], 0.0)
            return (read * factor).sum()

        return optimizer.update(weight, state, rows, jax.grad(loss)(rows_of(weight, rows))), None

    def run(carry: Any) -> Any:
        return jax.lax.scan(step, carry, (ids, factors))[0]

    return jax.jit(run, donate_argnums=0)((weight.copy(), optimizer.init(weight)))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_trajectories_are_those_of_float64(name: str, impl: str):
    optimizer, (ids, factors) = OPTIMIZERS[name](learning_rate=0.03, weight_decay=0.1, impl=impl), steps_of(8)
    rule = optimizer.rule()
    expected = Table(np.asarray(start(), np.float64), np.zeros((ITEMS, DIM)), np.zeros(rule.second_shape(ITEMS, DIM)))
    for number, step in enumerate(twin.steps_of(8), start=1):
        expected = updated(expected, rule, *twin.grad_of(*step), 0.03, number)
    weight, state = train(optimizer, start(), ids, factors)
    np.testing.assert_allclose(np.asarray(weight), expected.weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(state.second), expected.second, rtol=1e-5, atol=1e-7)
    assert int(state.step[0]) == 8


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frameworks_end_alike(name: str, dtype: str):
    ids, factors = steps_of(6)
    optimizer = OPTIMIZERS[name](learning_rate=0.05, stochastic_rounding=False)
    weight, _ = train(optimizer, start(dtype), ids, factors)
    table = TorchTable(ITEMS, DIM, dtype=getattr(torch, dtype), device=twin.DEVICE)
    with torch.no_grad():
        table.weight.copy_(torch.tensor(np.asarray(start(dtype).astype(jnp.float32))))
    of_torch = torch_optimizers.__dict__[OPTIMIZERS[name].__name__]
    twin.train(table, of_torch(table, lr=0.05, stochastic_rounding=False), twin.steps_of(6))
    want, got = table.weight.detach().float().cpu().numpy(), np.asarray(weight.astype(jnp.float32))
    # where a bfloat16 lies between two, the last bit of float32 may decide
    np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == "float32" else 2.0**-7, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_donated_table_stays_where_it_is(name: str):
    """At 64 times the rows that a step reads, the program needs little beside the table and its state."""
    items, dim = 1 << 14, 32
    optimizer = OPTIMIZERS[name]()
    weight = jnp.zeros((items, dim))
    ids, grad = jnp.arange(256, dtype=jnp.int32), jnp.ones((256, dim))

    def steps(weight: jax.Array, state: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            return optimizer.update(*carry, row_set(ids), grad), None

        return jax.lax.scan(step, (weight, state), None, length=3)[0]

    state = optimizer.init(weight)
    compiled = jax.jit(steps, donate_argnums=(0, 1)).lower(weight, state).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes >= sum(array.nbytes for array in jax.tree.leaves((weight, state)))
    assert memory.temp_size_in_bytes < weight.nbytes / 4


def test_schedules_are_those_of_optax():
    ids, factors = steps_of(4)
    schedule = optax.exponential_decay(1.0, transition_steps=1, decay_rate=0.5)
    weight, _ = train(RowWiseAdagrad(learning_rate=schedule), start(), ids, factors)
    table = TorchTable(ITEMS, DIM, device=twin.DEVICE)
    with torch.no_grad():
        table.weight.copy_(torch.tensor(np.asarray(start())))
    optimizer = torch_optimizers.RowWiseAdagrad(table, lr=1.0)
    halved = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for step in twin.steps_of(4):
        twin.train(table, optimizer, [step])
        halved.step()
    np.testing.assert_allclose(np.asarray(weight), table.weight.detach().cpu().numpy(), rtol=1e-5, atol=1e-6)


def test_an_embedding_shares_its_parameter_both_ways():
    embed = nnx.Embed(ITEMS, DIM, rngs=nnx.Rngs(0))
    table = ItemTable.from_embed(embed)
    rows = row_set(jnp.array([4, 4, 1]))
    np.testing.assert_array_equal(table(rows)[rows.places], embed(jnp.array([4, 4, 1])))
    optimizer = RowWiseAdagrad()
    state = optimizer.init(table.weight[...])
    table.weight[...], state = optimizer.update(table.weight[...], state, rows, jnp.ones((3, DIM)))
    again = table.to_embed()
    np.testing.assert_array_equal(again(jnp.arange(ITEMS)), embed.embedding[...])
    assert again.embedding is embed.embedding
    assert ItemTable(6, 4, rngs=nnx.Rngs(1), dtype=jnp.bfloat16)(row_set(jnp.array([2]))).dtype == jnp.float32


def test_malformed_arguments_are_named():
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"impl": "fast"}, "impl"),
    ]
    for options, argument in wrong:
        with pytest.raises(ArgumentValueError, match=f"{argument}: expected"):
            RowWiseAdagrad(**options)
    with pytest.raises(ArgumentValueError, match="betas: expected"):
        LazyAdam(betas=(1.0, 0.9))
    optimizer, weight, one = LazyAdam(), start(), row_set(jnp.array([1]))
    with pytest.raises(ArgumentValueError, match="grad: expected shape"):
        optimizer.update(weight, optimizer.init(weight), one, jnp.ones((2, DIM)))
    with pytest.raises(ArgumentTypeError, match="weight: expected"):
        optimizer.update(
            weight.astype(jnp.float16), optimizer.init(weight), row_set(jnp.array([1])), jnp.ones((1, DIM))
        )
    for other in (PartialRowWiseAdam(), RowWiseAdagrad()):
        with pytest.raises(ArgumentValueError, match="state: expected moments of shapes"):
            optimizer.update(weight, other.init(weight), one, jnp.ones((1, DIM)))
    with pytest.raises(ArgumentTypeError, match="dtype: expected float32 or bfloat16, got float16"):
        ItemTable(3, 4, rngs=nnx.Rngs(0), dtype=jnp.float16)
