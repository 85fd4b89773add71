"""The steps of a training: batches gathered, losses and gradients, the optimizer. Many are one call of a compiled
program over a state that it takes over, so that the host has little to do for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ...kernels.draws.permutation import fold_seeds
from ...kernels.negatives.objectives import Objective
from ...recsys import Ragged, TrainConfig
from ...recsys.run.steps import Steps
from ..models.parts import Graph, Parts
from ..models.sequence_model import SequenceModel
from .objective import Loss, follow, training_loss
from .optimizer import make_optimizer
from .sequences import Sequences


class State(NamedTuple):
    """What a step moves: the model's ``parameters``, the optimizer's state, the ``averages`` of weights and the
    ``frequencies`` of targets, both None where the configuration has none."""

    parameters: Any
    optimizer: Any
    averages: Any
    frequencies: Array | None


@dataclass(frozen=True)
class _Plan:
    """What shapes the program of the steps: it is compiled once for an equal one."""

    graph: Graph
    optimizer: Any
    objective: Objective
    loss: Loss
    accumulate: int
    max_length: int
    ema_decay: float


class TrainingSteps:
    """Trains ``model`` by `Steps`, and holds the ``state`` that they move; the model's own arrays are used up.

    Everything random in batch s follows from (config.seed, s). ``sequences`` are the users' to gather batches from;
    None where steps bring their batches. ``loss`` is by default the objective's.
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
    ) -> None:
        self.config = config
        graph, parameters, self._constants = Parts.of(model)
        optimizer = make_optimizer(config.optimizer, config.weight_decay, config.momentum, config.clip_norm)
        averages = jax.tree.map(jnp.copy, parameters) if config.ema_decay else None
        self.state = State(parameters, optimizer.init(parameters), averages, frequencies)
        self._plan = _Plan(graph, optimizer, objective, loss, config.accumulate, config.max_length, config.ema_decay)
        self._sequences = None if sequences is None else Sequences.of(sequences)

    def __call__(self, steps: Steps) -> Array:
        """Trains by ``steps`` and returns the losses (U, A) float32 of their batches, on the device."""
        shape = steps.counts.size, self.config.accumulate
        seeds = fold_seeds(self.config.seed, steps.first + np.arange(steps.counts.size * self.config.accumulate))
        operands = {
            "seeds": np.stack([seeds >> 32, seeds & 0xFFFFFFFF], axis=1).astype(np.uint32).reshape(*shape, 2),
            "rates": steps.rates,
            "counts": steps.counts,
            **{
                name: array
                for name in ("rows", "masked", "inputs", "targets")
                if (array := getattr(steps, name)) is not None
            },
        }
        train = _program(self.config.deterministic and jax.default_backend() == "gpu")
        self.state, losses = train(self.state, self._constants, self._sequences, operands, plan=self._plan)
        return losses

    def parts(self, state: State | None = None) -> Parts:
        """The model as it is validated, of ``state`` or of now: with the averages, if there are any, in place of the
        parameters."""
        state = state or self.state
        weights = state.parameters if state.averages is None else state.averages
        return Parts(self._plan.graph, weights, self._constants)


@cache
def _program(deterministic: bool) -> Callable[..., tuple[State, Array]]:
    options = {"xla_gpu_deterministic_ops": True} if deterministic else None
    # The old state makes room for the new one instead of standing beside it.
    return jax.jit(_train, static_argnames="plan", donate_argnames="state", compiler_options=options)


def _train(
    state: State, constants: Any, sequences: Sequences | None, operands: dict[str, Array], *, plan: _Plan
) -> tuple[State, Array]:
    return jax.lax.scan(partial(_update, constants=constants, sequences=sequences, plan=plan), state, operands)


def _update(
    state: State, operands: dict[str, Array], *, constants: Any, sequences: Sequences | None, plan: _Plan
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
    moves, moments = plan.optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = jax.tree.map(lambda weight, move: weight - rate * move, state.parameters, moves)
    averages = state.averages
    if averages is not None:
        averages = jax.tree.map(lambda mean, w: mean + (1 - plan.ema_decay) * (w - mean), averages, parameters)
    moved = State(parameters, moments, averages, frequencies)
    return jax.tree.map(partial(jnp.where, count > 0), moved, state), losses


def _batch(
    parameters: Any,
    frequencies: Array | None,
    operands: dict[str, Array],
    *,
    constants: Any,
    sequences: Sequences | None,
    plan: _Plan,
) -> tuple[Array | None, tuple[Any, Array]]:
    """The frequencies with the batch's targets, its gradients and its loss."""
    inputs, targets = _gathered(sequences, operands, plan.max_length)
    words = operands["seeds"]
    dropout_key = jax.random.fold_in(jax.random.key(words[0]), words[1])
    followed = follow(frequencies, targets, plan.objective)

    def loss_of(parameters: Any) -> Array:
        model = Parts(plan.graph, parameters, constants).model()
        return plan.loss(model, inputs, targets, words, dropout_key, objective=plan.objective, frequencies=followed)

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    return followed, (gradients, loss)


def _gathered(sequences: Sequences | None, operands: dict[str, Array], max_length: int) -> tuple[Array, Array]:
    if sequences is None:
        return operands["inputs"], operands["targets"]
    if "masked" in operands:
        return sequences.masked_items(operands["rows"], operands["masked"])
    return sequences.next_items(operands["rows"], max_length)
