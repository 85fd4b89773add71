"""JAX's steps: SASRec's training on a shard of a catalog, and full cross-entropy, of one device or inside
``jax.shard_map``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cce_minus.jax_impl import (
    CatalogShard,
    RowWiseAdagrad,
    UniformNegatives,
    input_rows,
    linear_cross_entropy,
    rows_of,
    sampled_linear_cross_entropy,
    working_set,
)
from cce_minus.jax_impl.models.parts import Parts
from cce_minus.jax_impl.models.sasrec import SASRec
from cce_minus.jax_impl.tables.optimizers import RowState
from cce_minus.jax_impl.training.optimizer import make_optimizer
from cce_minus.jax_impl.training.table_steps import split_table
from cce_minus.recsys.run.model_config import ModelConfig
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from .batches import targets_and_inputs
from .cases import WEAK, Case

AXIS = "shard"
OWN, SAME = P(AXIS), P()
_RATE = 1e-4


class Step:
    """``take(state, fixed, number)`` is a device's step, (state, loss (1,)); ``state`` and ``fixed`` are arrays of the
    mesh, cut as ``specs`` say. A step has nothing of the one before but its state."""

    def __init__(self, take: Callable[[Any, Any, Array], Any], state: Any, fixed: Any, specs: tuple[Any, Any]) -> None:
        self.take, self.state, self.fixed, self.specs = take, state, fixed, specs


def make_step(case: Case, mesh: Mesh) -> Step:
    """A step in which all devices of the mesh take part; of one, the plain calls."""
    catalog = CatalogShard(case.items, AXIS) if case.gpus > 1 else None
    return (_training_step if case.kind == WEAK else _loss_step)(case, mesh, catalog)


class _Embedded(SASRec):
    """SASRec whose inputs come embedded: ``rows`` (B, L, D), zeros of padding, in place of the item table's."""

    def embed(self, inputs: Array, rows: Array) -> Array:
        return rows.astype(jnp.float32) * math.sqrt(self.config.dim)


def _training_step(case: Case, mesh: Mesh, catalog: CatalogShard | None) -> Step:
    # the model's own table, of one item, is left out of the step: the sharded one is beside it
    config = ModelConfig(1, max_length=case.length, dim=case.dim, num_heads=case.heads)
    model = (SASRec if catalog is None else _Embedded)(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    parts = Parts.of(model)
    dense, no_items, join = split_table(parts.parameters)
    no_items, constants = np.asarray(no_items), jax.tree.map(np.asarray, parts.constants)
    optimizer, of_table = make_optimizer("adamw", 0.01, 0.0, 0.0), RowWiseAdagrad(learning_rate=_RATE)
    sampler = UniformNegatives(*case.samples)

    def take(state: Any, fixed: Any, number: Array) -> Any:
        dense, moments, table, of_rows = state
        target, inputs = fixed
        seed = jnp.stack([jnp.zeros_like(number), number])
        key = jax.random.fold_in(jax.random.key(0), number)
        if catalog is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        chosen = working_set(sampler, target, num_items=case.items, seed=seed, inputs=inputs, catalog=catalog)

        def loss_of(dense: list[Array], rows: Array) -> Array:
            model = Parts(parts.graph, join(dense, jnp.asarray(no_items)), constants).model()
            rngs = nnx.Rngs(dropout=key)
            if catalog is None:
                assert chosen.inputs is not None
                hidden = model(chosen.inputs, rows, rngs=rngs)
            else:
                hidden = model(inputs, input_rows(rows, chosen, catalog=catalog, dtype=jnp.bfloat16), rngs=rngs)
            hidden = hidden.reshape(-1, case.dim).astype(model.dtype)
            loss = sampled_linear_cross_entropy(hidden, rows, chosen.target, chosen, catalog=catalog)
            assert isinstance(loss, Array)
            return loss

        loss, (gradients, of_touched) = jax.value_and_grad(loss_of, (0, 1))(dense, rows_of(table, chosen))
        if catalog is not None:
            flat, unravel = ravel_pytree(gradients)
            gradients = unravel(jax.lax.psum(flat, AXIS) / case.gpus)
        moves, moments = optimizer.update(gradients, moments, dense)
        dense = jax.tree.map(lambda weight, move: weight - _RATE * move, dense, moves)
        table, of_rows = of_table.update(table, of_rows, chosen, of_touched)
        return (dense, moments, table, of_rows), loss.reshape(1)

    def start() -> tuple[Array, RowState]:
        table = _spread((case.items, case.dim), 0.02, case.table_dtype)
        return table, of_table.init(table)

    of_rows = RowState(SAME, None, OWN)  # type: ignore[arg-type]
    table, row_state = jax.jit(start, out_shardings=_shardings(mesh, (OWN, of_rows)))()
    moments = optimizer.init(dense)
    dense, moments = jax.device_put((dense, moments), NamedSharding(mesh, SAME))
    every = jax.tree.map(lambda _: SAME, (dense, moments))
    batches = [targets_and_inputs(case, rank) for rank in range(case.gpus)]
    fixed = tuple(jax.device_put(np.concatenate(ids), NamedSharding(mesh, OWN)) for ids in zip(*batches, strict=True))
    return Step(take, (dense, moments, table, row_state), fixed, ((*every, OWN, of_rows), (OWN, OWN)))


def _loss_step(case: Case, mesh: Mesh, catalog: CatalogShard | None) -> Step:
    """Its state is the gradients of the step before, whose memory the next ones take."""

    def take(state: Any, fixed: Any, number: Array) -> Any:
        hidden, table, target = fixed

        def loss_of(hidden: Array, table: Array) -> Array:
            loss = linear_cross_entropy(hidden, table, target, catalog=catalog)
            assert isinstance(loss, Array)
            return loss

        loss, gradients = jax.value_and_grad(loss_of, (0, 1))(hidden, table)
        return gradients, loss.reshape(1)

    def start() -> Any:
        hidden = _spread((case.positions * case.gpus, case.dim), 1.0, case.table_dtype)
        table = _spread((case.items, case.dim), case.dim**-0.5, case.table_dtype)
        return (hidden, table), (jnp.zeros_like(hidden), jnp.zeros_like(table))

    arrays, state = jax.jit(start, out_shardings=_shardings(mesh, ((OWN, OWN), (OWN, OWN))))()
    target = np.concatenate([targets_and_inputs(case, rank)[0] for rank in range(case.gpus)])
    fixed = (*arrays, jax.device_put(target, NamedSharding(mesh, OWN)))
    return Step(take, state, fixed, ((OWN, OWN), (OWN, OWN, OWN)))


def _spread(shape: tuple[int, int], std: float, dtype: str) -> Array:
    """Numbers evenly spread around 0, by a hash of their places: XLA's normals would have words of the table's size
    beside it, and on all devices."""
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 1))
    word = (row * jnp.uint32(0x9E3779B1)) ^ (column * jnp.uint32(0x85EBCA77))
    word = (word ^ (word >> 15)) * jnp.uint32(0x2C1B3C6D)
    unit = (word >> 8).astype(jnp.float32) * 2.0**-24
    return ((unit - 0.5) * (std * math.sqrt(12.0))).astype(dtype)


def _shardings(mesh: Mesh, specs: Any) -> Any:
    return jax.tree.map(partial(NamedSharding, mesh), specs, is_leaf=lambda leaf: isinstance(leaf, P))
