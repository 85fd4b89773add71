"""The steps of a training in either framework, without the loop around them."""

from __future__ import annotations

from pathlib import Path

import torch
from cce_minus.jax_impl import models as jax_models
from cce_minus.jax_impl.models import weights as jax_weights
from cce_minus.jax_impl.training import objective as jax_objective
from cce_minus.recsys import Batch, Split, TrainConfig
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl import models as torch_models
from cce_minus.torch_impl.models import weights as torch_weights
from cce_minus.torch_impl.training import objective as torch_objective
from flax import nnx

STATIC_LOSS = nnx.jit(jax_objective.training_loss, static_argnames="objective")


class TorchRun:
    """The configured model, its optimiser and its loss in PyTorch."""

    def __init__(self, config: TrainConfig, split: Split, device: str = "cpu") -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = torch_models.build_model(ModelConfig.from_train(config, split.num_items)).to(device)
        self.optimizer, self.schedule = torch_objective.make_optimizer(self.model, config)
        self.objective = torch_objective.objective_of(config, split)
        start = torch_objective.start_frequencies(self.objective, split)
        self.frequencies = None if start is None else start.to(device)

    def save(self, path: Path) -> None:
        torch_weights.save_weights(self.model, path)

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        """The loss of one step with the frequencies as they are."""
        inputs, targets = (torch.from_numpy(array).to(self.device) for array in (batch.inputs, batch.targets))
        seed = torch_objective.step_seed(self.config, step)
        return torch_objective.training_loss(
            self.model, inputs, targets, seed, objective=self.objective, frequencies=self.frequencies
        )

    def step(self, batch: Batch, step: int) -> float:
        """One step of the training; returns its loss."""
        targets = torch.from_numpy(batch.targets).to(self.device)
        self.frequencies = torch_objective.follow(self.frequencies, targets, self.objective)
        loss = self.loss(batch, step)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


class JaxRun:
    """The configured model, its optimiser and its loss in JAX."""

    def __init__(self, config: TrainConfig, split: Split) -> None:
        self.config = config
        self.model = jax_models.build_model(ModelConfig.from_train(config, split.num_items), rngs=nnx.Rngs(1))
        self.optimizer = jax_objective.make_optimizer(self.model, config)
        self.objective = jax_objective.objective_of(config, split)
        self.frequencies = jax_objective.start_frequencies(self.objective, split)

    def load(self, path: Path) -> None:
        jax_weights.load_weights(self.model, path)

    def save(self, path: Path) -> None:
        jax_weights.save_weights(self.model, path)

    def loss(self, batch: Batch, step: int) -> float:
        """The loss of one step with the frequencies as they are."""
        seed = jax_objective.step_seed(self.config, step)
        frequencies = None if self.frequencies is None else self.frequencies.values[...]
        return float(
            STATIC_LOSS(
                self.model, batch.inputs, batch.targets, seed, objective=self.objective, frequencies=frequencies
            )
        )

    def step(self, batch: Batch, step: int) -> float:
        """One step of the training; returns its loss."""
        seed = jax_objective.step_seed(self.config, step)
        state = self.model, self.optimizer, self.frequencies
        return float(jax_objective.train_step(*state, batch.inputs, batch.targets, seed, objective=self.objective))
