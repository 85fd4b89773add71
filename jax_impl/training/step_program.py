"""The program of a training's steps: batches gathered, losses and gradients, the optimizer; many steps are one call."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

from ..models.parts import Parts
from ..ranks import OF_ALL, OF_EACH, specs_of
from ..tables.optimizers import RowState
from .objective import follow, row_loss, shared_row_loss
from .plan import Plan
from .sequences import Sequences
from .table_steps import (
    gradients_of,
    move_table,
    rounding_words,
    rows_touched,
    shared_gradients_of,
    split_table,
)


class State(NamedTuple):
    """What a step moves: the model's ``parameters``, the optimizer's state, the ``averages`` of weights, the
    ``frequencies`` of targets, and of the item table the state of its own optimizer; the last three are None where the
    configuration has none."""

    parameters: Any
    optimizer: Any
    averages: Any
    frequencies: Array | None
    items: RowState | None = None


SHARED_SEEDS = "shared_seeds"
"""The operand (U, A, 2) that all devices draw by, where they share the item table."""

_OF_UPDATES = ("rates", "counts")


def cuts_of(operands: Collection[str]) -> dict[str, P]:
    """How a mesh's devices share the operands of these names."""
    return {name: OF_ALL if name in (*_OF_UPDATES, SHARED_SEEDS) else OF_EACH for name in operands}


@cache
def program(deterministic: bool) -> Any:
    options = {"xla_gpu_deterministic_ops": True} if deterministic else None
    # The old state makes room for the new one instead of standing beside it.
    return jax.jit(train, static_argnames="plan", donate_argnames="state", compiler_options=options)


def train(
    state: State, constants: Any, sequences: Sequences | None, operands: dict[str, Array], *, plan: Plan
) -> tuple[State, Array]:
    if plan.mesh is None:
        return _train_one(state, constants, sequences, operands, plan=plan)
    of_state, of_constants = (specs_of(tree, is_sharded=plan.is_sharded) for tree in (state, constants))
    # what is replicated is so by its making: psum gives all devices the same bits
    shared = jax.shard_map(
        partial(_train_one, plan=plan), mesh=plan.mesh, in_specs=(of_state, of_constants, OF_ALL, cuts_of(operands)),
        out_specs=(of_state, OF_ALL), check_vma=False,
    )  # fmt: skip
    return shared(state, constants, sequences, operands)


def _train_one(
    state: State, constants: Any, sequences: Sequences | None, operands: dict[str, Array], *, plan: Plan
) -> tuple[State, Array]:
    if plan.mesh is not None:
        operands = operands | {"seeds": operands["seeds"][:, :, 0]}
    update = _update if plan.item_rule is None else _update_rows
    return jax.lax.scan(partial(update, constants=constants, sequences=sequences, plan=plan), state, operands)


def _update(
    state: State, operands: dict[str, Array], *, constants: Any, sequences: Sequences | None, plan: Plan
) -> tuple[State, Array]:
    """One update from the mean gradient of its batches; one without batches leaves the state as it is."""
    batch = partial(_batch, state.parameters, constants=constants, sequences=sequences, plan=plan)
    own = {name: operand for name, operand in operands.items() if name not in _OF_UPDATES}
    rate, count = operands["rates"], operands["counts"]
    if plan.accumulate == 1:
        first = {name: operand[0] for name, operand in own.items()}
        frequencies, (gradients, loss) = batch(state.frequencies, first)
        losses = loss[None]
    else:

        def add(carry: tuple[Any, Array | None], operand: dict[str, Array]) -> tuple[tuple[Any, Array | None], Array]:
            frequencies, (gradients, loss) = batch(carry[1], operand)
            return (jax.tree.map(jnp.add, carry[0], gradients), frequencies), loss

        nothing = jax.tree.map(jnp.zeros_like, state.parameters)
        (gradients, frequencies), losses = jax.lax.scan(add, (nothing, state.frequencies), own)
        gradients = jax.tree.map(lambda gradient: gradient / jnp.maximum(count, 1), gradients)
    gradients, losses = plan.total((gradients, losses))
    moves, moments = plan.optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = jax.tree.map(lambda weight, move: weight - rate * move, state.parameters, moves)
    averages = state.averages
    if averages is not None:
        averages = jax.tree.map(lambda mean, w: mean + (1 - plan.ema_decay) * (w - mean), averages, parameters)
    moved = State(parameters, moments, averages, frequencies, state.items)
    return jax.tree.map(partial(jnp.where, count > 0), moved, state), losses


def _update_rows(
    state: State, operands: dict[str, Array], *, constants: Any, sequences: Sequences | None, plan: Plan
) -> tuple[State, Array]:
    """`_update` by one batch, which moves the rows of the item table that it touches."""
    assert plan.item_rule is not None
    assert state.items is not None
    own = {name: operand[0] for name, operand in operands.items() if name not in _OF_UPDATES}
    rate, is_live, objective = operands["rates"], operands["counts"] > 0, plan.objective
    inputs, targets = _gathered(sequences, own, plan.length)
    words = own["seeds"]
    dropout_key = jax.random.fold_in(jax.random.key(words[0]), words[1])
    others, table, join = split_table(state.parameters)
    given = rows_touched(table, inputs, targets, own.get(SHARED_SEEDS, words), objective, plan.catalog)

    def loss_of(others: list[Array], rows: Array) -> Array:
        model = Parts(plan.graph, join(others, table), constants).model()
        loss_of_rows = row_loss if plan.catalog is None else partial(shared_row_loss, inputs, catalog=plan.catalog)
        return plan.weight(targets) * loss_of_rows(model, rows, given, dropout_key, objective=objective)

    gradients_by = gradients_of if plan.catalog is None else shared_gradients_of
    loss, gradients = gradients_by(loss_of, others, table, given, plan.clip_norm)
    moves, moments = plan.optimizer.update(gradients[0], state.optimizer, others)
    moved = jax.tree.map(lambda weight, move: weight - rate * move, others, moves), moments
    others, moments = jax.tree.map(partial(jnp.where, is_live), moved, (others, state.optimizer))
    table, items = move_table(
        table,
        state.items,
        given,
        gradients[1],
        rate * plan.item_rate_share,
        is_live,
        plan.item_rule,
        rounding_words(table, plan.rounding_seed, plan.catalog),
        objective.impl,
    )
    return State(join(others, table), moments, state.averages, state.frequencies, items), loss[None]


def _batch(
    parameters: Any,
    frequencies: Array | None,
    operands: dict[str, Array],
    *,
    constants: Any,
    sequences: Sequences | None,
    plan: Plan,
) -> tuple[Array | None, tuple[Any, Array]]:
    """The frequencies with the batch's targets, its gradients and its loss."""
    inputs, targets = _gathered(sequences, operands, plan.length)
    words = operands["seeds"]
    dropout_key = jax.random.fold_in(jax.random.key(words[0]), words[1])
    followed = None if frequencies is None else follow(frequencies, plan.gathered(targets), plan.objective)

    def loss_of(parameters: Any) -> Array:
        model = Parts(plan.graph, parameters, constants).model()
        loss = plan.loss(model, inputs, targets, words, dropout_key, objective=plan.objective, frequencies=followed)
        return plan.weight(targets) * loss

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    return followed, (gradients, loss)


def _gathered(sequences: Sequences | None, operands: dict[str, Array], length: int) -> tuple[Array, Array]:
    if sequences is None:
        return operands["inputs"], operands["targets"]
    if "masked" in operands:
        return sequences.masked_items(operands["rows"], operands["masked"])
    return sequences.next_items(operands["rows"], length)
