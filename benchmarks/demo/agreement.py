"""How far apart the training losses of the two frameworks are, step by step from identical weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import jax.numpy as jnp
import torch
from cce_minus.jax_impl import models as jax_models
from cce_minus.jax_impl.models import weights as jax_weights
from cce_minus.jax_impl.training import objective as jax_objective
from cce_minus.recsys import Batch, Split, TrainConfig, epoch_batches
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.steps import Steps
from cce_minus.torch_impl import models as torch_models
from cce_minus.torch_impl.models import weights as torch_weights
from cce_minus.torch_impl.training import objective as torch_objective
from cce_minus.torch_impl.training.steps import TrainingSteps
from flax import nnx
from tqdm import tqdm


def largest_loss_difference(
    config: TrainConfig, split: Split, initial: Path, folder: Path, *, steps: int = 20
) -> float:
    """Returns the largest ``|loss_jax - loss_torch| / loss_torch`` over ``steps`` training steps, dropout 0.

    PyTorch trains from the weights in ``initial``. Before each step the Flax model takes over PyTorch's weights through
    a file in ``folder``, so that every step is compared from identical weights, on the same batch and with the same
    seed for the negatives. NaN if a loss is NaN.
    """
    config = replace(config, dropout=0.0, accumulate=1)
    shape = ModelConfig.from_train(config, split.num_items)
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    torch_model = torch_models.build_model(shape)
    torch_weights.load_weights(torch_model, initial)
    torch_model.to(device)
    jax_model = jax_models.build_model(shape, rngs=nnx.Rngs(0))
    jax_loss = nnx.jit(jax_objective.training_loss, static_argnames="objective")
    objective = torch_objective.objective_of(config, split)
    start = torch_objective.start_frequencies(objective, split)
    train = TrainingSteps(
        torch_model,
        config,
        objective,
        contextlib.nullcontext,
        frequencies=None if start is None else start.to(device),
    )
    frequencies = jax_objective.start_frequencies(objective, split)
    shared = folder / "step.safetensors"
    differences = []
    for step, batch in enumerate(tqdm(islice(_batches(config, split), steps), desc="comparing steps", total=steps)):
        torch_weights.save_weights(torch_model, shared)
        jax_weights.load_weights(jax_model, shared)
        (loss,) = train(Steps.of_batch(batch, step, config)).tolist()
        frequencies = jax_objective.follow(frequencies, jnp.asarray(batch.targets), objective)
        seed = jax_objective.step_seed(config, step)
        twin = jax_loss(jax_model, batch.inputs, batch.targets, seed, objective=objective, frequencies=frequencies)
        differences.append(abs(float(twin) - loss) / loss)
    shared.unlink()
    # Not max(): that would skip a NaN.
    return float(torch.tensor(differences, dtype=torch.float64).max())


def _batches(config: TrainConfig, split: Split) -> Iterator[Batch]:
    for epoch in count():
        yield from epoch_batches(config, split, epoch)
