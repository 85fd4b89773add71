"""The steps of a training: batches gathered, losses and gradients, the optimizer. Many are one call of a compiled
program over a state that it takes over, so that the host has little to do for each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from ...kernels.draws.permutation import fold_seeds
from ...kernels.negatives.objectives import Objective
from ...recsys import Ragged, TrainConfig
from ...recsys.run.background import in_thread
from ...recsys.run.item_optimizer import item_rate_share
from ...recsys.run.steps import Steps
from ..models.parts import Parts, shape_of
from ..models.sequence_model import SequenceModel
from ..ranks import OF_ALL, OF_EACH, on_all, on_first, rows_of_ranks, seeds_of_ranks
from ..tables.optimizers import RowState
from .objective import Loss, follow, row_loss, training_loss
from .optimizer import make_optimizer
from .plan import Plan
from .sequences import Sequences
from .table_steps import gradients_of, move_table, rows_touched, split_table, start_table, table_rule


class State(NamedTuple):
    """What a step moves: the model's ``parameters``, the optimizer's state, the ``averages`` of weights, the
    ``frequencies`` of targets, and of the item table the state of its own optimizer; the last three are None where the
    configuration has none."""

    parameters: Any
    optimizer: Any
    averages: Any
    frequencies: Array | None
    items: RowState | None = None


class TrainingSteps:
    """Trains ``model`` by `Steps`, and holds the ``state`` that they move; the model's own arrays are used up.

    Everything random in batch s follows from (config.seed, s). ``sequences`` are the users' to gather batches from;
    None where steps bring their batches. ``loss`` is by default the objective's. With an ``item_rule`` the item table
    has an optimizer of its own, which moves what a step touches, and the loss is the objective's on these rows.
    With ``weighing_targets`` the loss of a batch is weighed by its number of targets over that one. The devices of a
    ``mesh`` share each batch, and take the same steps: by the mean over all of its targets.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: TrainConfig,
        objective: Objective,
        *,
        frequencies: Array | None = None,
        sequences: Ragged | None = None,
        loss: Loss = training_loss,
        item_rule: str | None = None,
        weighing_targets: float | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        self.config = config
        graph, parameters, self._constants = Parts.of(model)
        self._constants_on_one = self._constants
        rule = None if item_rule is None else table_rule(item_rule, config)
        clip_norm = config.clip_norm if rule is None else 0.0  # with the rows' gradients, beforehand
        optimizer = make_optimizer(config.optimizer, config.weight_decay, config.momentum, clip_norm)
        averages = jax.tree.map(jnp.copy, parameters) if config.ema_decay else None
        dense = parameters if rule is None else split_table(parameters)[0]
        items = None if rule is None else start_table(parameters, rule)
        self.state: State = State(parameters, optimizer.init(dense), averages, frequencies, items)
        self._plan = Plan(
            graph, optimizer, objective, loss, config.accumulate, config.max_length, config.ema_decay,
            config.clip_norm, rule, item_rate_share(config),
            config.seed if config.table_dtype == "bf16" else 0, weighing_targets, mesh,
        )  # fmt: skip
        self._sequences = None if sequences is None else Sequences.of(sequences)
        self._ahead = dict[object, Future[Callable[..., tuple[State, Array]]]]()

    def __call__(self, steps: Steps) -> Array:
        """Trains by ``steps`` and returns the losses (U, A) float32 of their batches, on the device."""
        held = *self._placed(), self._operands(steps)
        if (ahead := self._ahead.get(_form(steps))) is not None:
            self.state, losses = ahead.result()(*held)
        else:
            self.state, losses = self._program()(*held, plan=self._plan_of(steps))
        return losses

    def compile_ahead(self, steps: Steps) -> None:
        """Compiles in a thread what trains by steps like these; what goes wrong is raised where it is needed."""
        held = jax.tree.map(shape_of, (*self._placed(), self._operands(steps)))
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]

        def work() -> Callable[..., tuple[State, Array]]:
            with jax.default_matmul_precision(precision):  # a thread has JAX's own settings
                return self._program().lower(*held, plan=self._plan_of(steps)).compile()

        self._ahead[_form(steps)] = in_thread(work, f"compile steps of length {steps.length}")

    def _placed(self) -> tuple[State, Any, Sequences | None]:
        if self._plan.mesh is not None:
            held = self.state, self._constants, self._sequences
            self.state, self._constants, self._sequences = on_all(held, self._plan.mesh)
        return self.state, self._constants, self._sequences

    def _operands(self, steps: Steps) -> dict[str, np.ndarray]:
        shape: tuple[int, ...] = steps.counts.size, self.config.accumulate
        seeds = fold_seeds(self.config.seed, steps.first + np.arange(steps.counts.size * self.config.accumulate))
        if self._plan.mesh is not None:
            number = self._plan.mesh.size
            steps, seeds, shape = rows_of_ranks(steps, number), seeds_of_ranks(seeds, number), (*shape, number)
        return {
            "seeds": np.stack([seeds >> 32, seeds & 0xFFFFFFFF], axis=-1).astype(np.uint32).reshape(*shape, 2),
            "rates": steps.rates,
            "counts": steps.counts,
            **{
                name: array
                for name in ("rows", "masked", "inputs", "targets")
                if (array := getattr(steps, name)) is not None
            },
        }

    def _program(self) -> Any:
        return _program(self.config.deterministic and jax.default_backend() == "gpu")

    def _plan_of(self, steps: Steps) -> Plan:
        return replace(self._plan, length=steps.length)

    def release(self) -> None:
        """Frees the state's memory, whoever else has the arrays; there are no more steps until there is another."""
        for array in jax.tree.leaves(self.state):
            array.delete()

    def state_on_one(self) -> State:
        """The state as one device has it, until the next steps."""
        placed = self._plan.mesh is not None and len(jax.tree.leaves(self.state)[0].devices()) > 1
        return on_first(self.state) if placed else self.state

    def parts(self, state: State | None = None) -> Parts:
        """The model as it is validated, of ``state`` or of now: with the averages, if there are any, in place of the
        parameters."""
        state = state or self.state_on_one()
        weights = state.parameters if state.averages is None else state.averages
        return Parts(self._plan.graph, weights, self._constants_on_one)


def _form(steps: Steps) -> object:
    return steps.length, steps.counts.shape


@cache
def _program(deterministic: bool) -> Any:
    options = {"xla_gpu_deterministic_ops": True} if deterministic else None
    # The old state makes room for the new one instead of standing beside it.
    return jax.jit(_train, static_argnames="plan", donate_argnames="state", compiler_options=options)


def _train(
    state: State, constants: Any, sequences: Sequences | None, operands: dict[str, Array], *, plan: Plan
) -> tuple[State, Array]:
    if plan.mesh is None:
        return _train_one(state, constants, sequences, operands, plan=plan)
    cuts = {name: OF_ALL if name in ("rates", "counts") else OF_EACH for name in operands}
    # what is replicated is so by its making: psum gives all devices the same bits
    shared = jax.shard_map(
        partial(_train_one, plan=plan), mesh=plan.mesh, in_specs=(OF_ALL, OF_ALL, OF_ALL, cuts), out_specs=OF_ALL,
        check_vma=False,
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
    own = {name: operand for name, operand in operands.items() if name not in ("rates", "counts")}
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
    gradients, losses = plan.mean((gradients, losses))
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
    own = {name: operand[0] for name, operand in operands.items() if name not in ("rates", "counts")}
    rate, is_live, objective = operands["rates"], operands["counts"] > 0, plan.objective
    inputs, targets = _gathered(sequences, own, plan.length)
    words = own["seeds"]
    dropout_key = jax.random.fold_in(jax.random.key(words[0]), words[1])
    others, table, join = split_table(state.parameters)
    given = rows_touched(table, inputs, targets, words, objective)

    def loss_of(others: list[Array], rows: Array) -> Array:
        model = Parts(plan.graph, join(others, table), constants).model()
        return plan.weight(targets) * row_loss(model, rows, given, dropout_key, objective=objective)

    loss, gradients = gradients_of(loss_of, others, table, given, plan.clip_norm)
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
        plan.rounding_seed,
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
