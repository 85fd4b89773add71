"""The steps of a training. Many are one call of a compiled program over a state that it takes over, so that the host
has little to do for each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh

from ...kernels.draws.permutation import fold_seeds
from ...kernels.negatives.objectives import Objective
from ...recsys import Ragged, TrainConfig
from ...recsys.run.background import in_thread
from ...recsys.run.item_optimizer import item_rate_share
from ...recsys.run.steps import Steps
from ..loss.catalog_shard import CatalogShard
from ..models.parts import Parts, shape_of
from ..models.sequence_model import SequenceModel
from ..ranks import AXIS, cut_on_mesh, on_first, on_mesh, rows_of_ranks, seeds_of_ranks
from .objective import Loss, training_loss
from .optimizer import make_optimizer
from .plan import Plan
from .sequences import Sequences
from .step_program import SHARED_SEEDS, State, cuts_of, program, train
from .table_steps import split_table, start_table, table_rule


class TrainingSteps:
    """Trains ``model`` by `Steps`, and holds the ``state`` that they move; the model's own arrays are used up.

    Everything random in batch s follows from (config.seed, s). ``sequences`` are the users' to gather batches from;
    None where steps bring their batches. ``loss`` is by default the objective's. With an ``item_rule`` the item table
    has an optimizer of its own, which moves what a step touches, and the loss is the objective's on these rows.
    With ``weighing_targets`` the loss of a batch is weighed by its number of targets over that one. The devices of a
    ``mesh`` share each batch, and take the same steps: by the mean over all of its targets. With an ``item_rule`` they
    also share the item table, of a `build_sharded_model`.
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
        self.config, self.num_items = config, model.config.num_items
        graph, parameters, constants = Parts.of(model)
        rule = None if item_rule is None else table_rule(item_rule, config)
        clip_norm = config.clip_norm if rule is None else 0.0  # with the rows' gradients, beforehand
        optimizer = make_optimizer(config.optimizer, config.weight_decay, config.momentum, clip_norm)
        averages = jax.tree.map(jnp.copy, parameters) if config.ema_decay else None
        dense = parameters if rule is None else split_table(parameters)[0]
        items = None if rule is None else start_table(parameters, rule)
        catalog = None if rule is None or mesh is None else CatalogShard(self.num_items, AXIS)
        self._plan = Plan(
            graph, optimizer, objective, loss, config.accumulate, config.max_length, config.ema_decay,
            config.clip_norm, rule, item_rate_share(config),
            config.seed if config.table_dtype == "bf16" else 0, weighing_targets, mesh, catalog,
        )  # fmt: skip
        own = None if sequences is None else Sequences.of(sequences)
        self._constants, self._sequences = self._placed((constants, own))
        self.state = State(parameters, optimizer.init(dense), averages, frequencies, items)
        self._ahead = dict[object, Future[Callable[..., tuple[State, Array]]]]()

    @property
    def state(self) -> State:
        """What steps move, on all devices."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state: State = self._placed(state)

    @property
    def mesh(self) -> Mesh | None:
        return self._plan.mesh

    @property
    def is_sharded(self) -> bool:
        """Whether the devices of the mesh share the item table."""
        return self._plan.is_sharded

    def __call__(self, steps: Steps) -> Array:
        """Trains by ``steps`` and returns the losses (U, A) float32 of their batches, on the device."""
        held = self._state, self._constants, self._sequences, self._operands(steps)
        if (ahead := self._ahead.get(_form(steps))) is not None:
            self._state, losses = ahead.result()(*held)
        else:
            self._state, losses = self._program(*held, plan=self._plan_of(steps))
        return losses

    def compile_ahead(self, steps: Steps) -> None:
        """Compiles in a thread what trains by steps like these; what goes wrong is raised where it is needed."""
        held = jax.tree.map(shape_of, (self._state, self._constants, self._sequences, self._operands(steps)))
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]

        def work() -> Callable[..., tuple[State, Array]]:
            with jax.default_matmul_precision(precision):  # a thread has JAX's own settings
                return self._program.lower(*held, plan=self._plan_of(steps)).compile()

        self._ahead[_form(steps)] = in_thread(work, f"compile steps of length {steps.length}")

    def trace(self, steps: Steps) -> None:
        """Traces what trains by ``steps`` that bring their batches, so that what only a step refuses is raised."""
        held = jax.tree.map(shape_of, (self.state, self._constants, None, self._operands(steps)))
        jax.eval_shape(partial(train, plan=self._plan_of(steps)), *held)

    def _placed(self, tree: Any) -> Any:
        return tree if self.mesh is None else on_mesh(tree, self.mesh, is_sharded=self.is_sharded)

    def _operands(self, steps: Steps) -> dict[str, Any]:
        shape: tuple[int, ...] = steps.counts.size, self.config.accumulate
        seeds = fold_seeds(self.config.seed, steps.first + np.arange(steps.counts.size * self.config.accumulate))
        shared = {SHARED_SEEDS: _words(seeds, shape)} if self.is_sharded else {}
        if self._plan.mesh is not None:
            number = self._plan.mesh.size
            steps, seeds, shape = rows_of_ranks(steps, number), seeds_of_ranks(seeds, number), (*shape, number)
        operands = {
            "seeds": _words(seeds, shape),
            **shared,
            "rates": steps.rates,
            "counts": steps.counts,
            **{
                name: array
                for name in ("rows", "masked", "inputs", "targets")
                if (array := getattr(steps, name)) is not None
            },
        }
        if self.mesh is None or not self.mesh.is_multi_process:
            return operands
        return cut_on_mesh(operands, self.mesh, cuts_of(operands))

    @property
    def _program(self) -> Any:
        return program(self.config.deterministic and jax.default_backend() == "gpu")

    def _plan_of(self, steps: Steps) -> Plan:
        return replace(self._plan, length=steps.length)

    def release(self) -> None:
        """Frees the state's memory, whoever else has the arrays; there are no more steps until there is another."""
        for array in jax.tree.leaves(self.state):
            array.delete()

    def kept_state(self) -> State:
        """The state until the next steps: of several devices what the first of this process has, unless they share the
        item table."""
        return self._state if self.mesh is None or self.is_sharded else on_first(self._state)

    def parts(self, state: State | None = None) -> Parts:
        """The model as it is validated, on all devices: with the averages, if there are any, in place of the
        parameters. Of ``state``, or of now."""
        state = self._state if state is None else state
        weights = state.parameters if state.averages is None else state.averages
        return Parts(self._plan.graph, weights, self._constants)


def _words(seeds: npt.NDArray[np.uint64], shape: tuple[int, ...]) -> npt.NDArray[np.uint32]:
    """Seeds as words (high, low), (.., 2)."""
    return np.stack([seeds >> 32, seeds & 0xFFFFFFFF], axis=-1).astype(np.uint32).reshape(*shape, 2)


def _form(steps: Steps) -> object:
    return steps.length, steps.counts.shape
