"""The steps of a training in either framework, without the loop around them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cce_minus.jax_impl import models as jax_models
from cce_minus.jax_impl.models import weights as jax_weights
from cce_minus.jax_impl.training import objective as jax_objective
from cce_minus.jax_impl.training.steps import TrainingSteps as JaxSteps
from cce_minus.recsys import Batch, Split, TrainConfig
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.steps import Steps
from cce_minus.torch_impl import models as torch_models
from cce_minus.torch_impl.models import weights as torch_weights
from cce_minus.torch_impl.training import objective as torch_objective
from cce_minus.torch_impl.training.steps import TrainingSteps as TorchSteps
from flax import nnx

STATIC_LOSS = nnx.jit(jax_objective.training_loss, static_argnames="objective")

Arrays = dict[str, np.ndarray]


class TorchRun:
    """The configured model, its optimiser and its loss in PyTorch; ``options`` are of its ``TrainingSteps``."""

    def __init__(self, config: TrainConfig, split: Split, device: str = "cpu", **options: Any) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = torch_models.build_model(ModelConfig.from_train(config, split.num_items)).to(device)
        self.objective = torch_objective.objective_of(config, split)
        start = torch_objective.start_frequencies(self.objective, split)
        self.steps = TorchSteps(
            self.model,
            config,
            self.objective,
            contextlib.nullcontext,
            frequencies=None if start is None else start.to(device),
            **options,
        )

    @property
    def frequencies(self) -> np.ndarray | None:
        return None if self.steps.frequencies is None else self.steps.frequencies.cpu().numpy()

    @property
    def weights(self) -> Arrays:
        return {
            name: parameter.detach().float().cpu().numpy().copy() for name, parameter in self.steps.parameters.items()
        }

    @property
    def averages(self) -> Arrays:
        return {name: average.cpu().numpy().copy() for name, average in self.steps.averages.items()}

    def save(self, path: Path) -> None:
        torch_weights.save_weights(self.model, path)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        """The loss of one step with the frequencies as they are."""
        inputs, targets = (torch.from_numpy(array).to(self.device) for array in (batch.inputs, batch.targets))
        seed = torch_objective.step_seed(self.config, step)
        return torch_objective.training_loss(
            self.model, inputs, targets, seed, objective=self.objective, frequencies=self.steps.frequencies
        )

    def step(self, batch: Batch, step: int) -> float:
        """One step of the training; returns its loss."""
        return float(self.steps(Steps.of_batch(batch, step, self.config))[0])


class JaxRun:
    """The configured model, its optimiser and its loss in JAX; ``options`` are of its ``TrainingSteps``."""

    def __init__(self, config: TrainConfig, split: Split, **options: Any) -> None:
        self.config = config
        self.objective = jax_objective.objective_of(config, split)
        self.steps = JaxSteps(
            jax_models.build_model(ModelConfig.from_train(config, split.num_items), rngs=nnx.Rngs(1)),
            config,
            self.objective,
            frequencies=jax_objective.start_frequencies(self.objective, split),
            **options,
        )

    @property
    def frequencies(self) -> np.ndarray | None:
        found = self.steps.state.frequencies
        return None if found is None else np.array(found)

    @property
    def weights(self) -> Arrays:
        return _named(self.steps.parts(self.steps.state._replace(averages=None)).model())

    @property
    def averages(self) -> Arrays:
        return _named(self.steps.parts().model())

    def load(self, path: Path) -> None:
        """Takes over the weights in a file, also as their averages; the rest of the state stays."""
        model = self.steps.parts().model()
        jax_weights.load_weights(model, path)
        parameters, state = nnx.state(model, nnx.Param), self.steps.state
        # A copy, because steps use up what they are given.
        averages = None if state.averages is None else jax.tree.map(jnp.copy, parameters)
        self.steps.state = state._replace(parameters=parameters, averages=averages)

    def save(self, path: Path) -> None:
        jax_weights.save_weights(self.steps.parts().model(), path)

    def loss(self, batch: Batch, step: int) -> float:
        """The loss of one step with the frequencies as they are."""
        seed = jax_objective.step_seed(self.config, step)
        operands = self.steps.parts().model(), batch.inputs, batch.targets, seed
        return float(STATIC_LOSS(*operands, objective=self.objective, frequencies=self.steps.state.frequencies))

    def step(self, batch: Batch, step: int) -> float:
        """One step of the training; returns its loss."""
        return float(self.steps(Steps.of_batch(batch, step, self.config))[0, 0])


def _named(model: Any) -> Arrays:
    """A model's parameters by the names and in the shapes that PyTorch's have."""
    arrays = {
        name: (np.array(weight[...], np.float32), kernel) for _, name, weight, kernel in jax_weights._parameters(model)
    }
    return {name: array.T if kernel else array for name, (array, kernel) in arrays.items()}


@contextlib.contextmanager
def eager_steps() -> Iterator[None]:
    """PyTorch's steps one kernel after the other on a GPU too, as they are on a CPU."""
    start = TorchSteps.__init__

    def start_eager(self: TorchSteps, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        self._captures = False

    with mock.patch.object(TorchSteps, "__init__", start_eager):
        yield
