"""The training loss of a configuration, and the optimiser that minimises it."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ...kernels import ArgumentError, fold_seed
from ...kernels.negatives.objectives import Objective, make_objective
from ...recsys import (
    Split,
    TrainConfig,
    epoch_batches,
    item_counts,
    loss_options,
    smoothed_frequencies,
)
from ...recsys.option_checks import options_refused
from ..loss.arguments import check_impl
from ..loss.binary import sampled_linear_binary_cross_entropy
from ..loss.cross_entropy import sampled_linear_cross_entropy
from ..loss.frequencies import update_frequencies
from ..loss.scalable import scalable_linear_cross_entropy
from ..models.sequence_model import SequenceModel


def objective_of(config: TrainConfig, split: Split) -> Objective:
    """Returns what a run minimises, to be made once for the run; raises ``ConfigError`` for options that the samplers
    refuse."""
    with options_refused(ArgumentError):
        return make_objective(**loss_options(config, split))


def try_loss(model: SequenceModel, objective: Objective, config: TrainConfig, split: Split) -> None:
    """Traces the first batch's loss, so that what only the loss refuses is a ``ConfigError`` before a run claims its
    folder."""
    batch = next(epoch_batches(config, split, 0))
    start = start_frequencies(objective, split)
    frequencies = None if start is None else start.values[...]
    with options_refused(ArgumentError):
        check_impl(objective.impl, model.item_table[...])  # a traced array knows no device
        nnx.eval_shape(
            partial(training_loss, objective=objective),
            *(model, batch.inputs, batch.targets, step_seed(config, 0)),
            frequencies=frequencies,
        )


class Frequencies(nnx.Module):
    """The estimate ``values`` (V,) float32 of how often each item is a target: state of a training, beside model and
    optimiser."""

    def __init__(self, values: ArrayLike) -> None:
        self.values = nnx.Variable(jnp.asarray(values, jnp.float32))


def start_frequencies(objective: Objective, split: Split) -> Frequencies | None:
    """Returns the frequencies of the training part; None where the objective follows none."""
    if objective.frequency_rate is None:
        return None
    return Frequencies(smoothed_frequencies(item_counts(split.train, split.num_items)))


def follow(frequencies: Frequencies | None, targets: Array, objective: Objective) -> Array | None:
    """Moves ``frequencies`` towards the batch's targets, before its loss, and returns their values."""
    if frequencies is None:
        return None
    assert objective.frequency_rate is not None
    values = update_frequencies(frequencies.values[...], targets, rate=objective.frequency_rate)
    frequencies.values[...] = values
    return values


def training_loss(
    model: SequenceModel,
    inputs: ArrayLike,
    targets: ArrayLike,
    seed: ArrayLike,
    dropout_key: Array | None = None,
    *,
    objective: Objective,
    frequencies: Array | None = None,
) -> Array:
    """Returns the mean loss (float32 scalar) of a batch: ``inputs`` and ``targets`` (B, L), -100 ignored.

    ``seed`` is ``step_seed(config, step)``: it draws the step's negatives, the same in both frameworks. Dropout acts
    when a key is given. ``objective`` is ``objective_of(config, split)``; ``frequencies`` (V,), if it follows any, are
    those with this batch's targets in them.
    """
    rows = model.item_rows()
    hidden = model(jnp.asarray(inputs), rows, rngs=None if dropout_key is None else nnx.Rngs(dropout=dropout_key))
    operands = hidden.astype(model.dtype), rows, jnp.asarray(targets)
    o = objective
    if o.buckets is not None:
        return scalable_linear_cross_entropy(*operands, **vars(o.buckets), seed=seed, impl=o.impl)
    assert o.sampler is not None
    if o.loss in ("bce", "gbce"):
        return sampled_linear_binary_cross_entropy(*operands, o.sampler, gbce_t=o.gbce_t, seed=seed, impl=o.impl)
    assert o.loss == "softmax", o.loss
    log_q = None if frequencies is None else jnp.log(frequencies)
    return sampled_linear_cross_entropy(
        *operands, o.sampler, log_q=log_q, logq_correction=o.logq_correction, seed=seed, impl=o.impl
    )


def step_seed(config: TrainConfig, step: int) -> npt.NDArray[np.uint32]:
    """Returns ``fold_seed(config.seed, step)`` as two words (high, low), uint32: an operand, not a constant."""
    seed = fold_seed(config.seed, step)
    return np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)


def make_optimizer(model: SequenceModel, config: TrainConfig) -> nnx.Optimizer[SequenceModel]:
    """Returns AdamW (betas 0.9, 0.999, eps 1e-8, decay on every parameter) with its warm-up.

    Step s (from 0) has learning rate ``learning_rate * min(1, (s + 1) / warmup_steps)``.
    """
    transformation = _adamw(config.learning_rate, config.warmup_steps, config.weight_decay)
    return nnx.Optimizer(model, transformation, wrt=nnx.Param)


# Cached because Optax's transformations equal only themselves: with a new one each time, every run in one process would
# compile its step again.
@cache
def _adamw(learning_rate: float, warmup_steps: int, weight_decay: float) -> optax.GradientTransformationExtraArgs:
    warmup = max(warmup_steps, 1)
    schedule = optax.schedules.linear_schedule(learning_rate / warmup, learning_rate, transition_steps=warmup - 1)
    return optax.adamw(schedule, b1=0.9, b2=0.999, eps=1e-8, weight_decay=weight_decay)


# Only what shapes the step is static: a whole TrainConfig would compile it again for another output folder. Donated:
# the old weights and moments make room for the new ones instead of standing beside them.
@partial(nnx.jit, static_argnames="objective", donate_argnames=("model", "optimizer", "frequencies"))
def train_step(
    model: SequenceModel,
    optimizer: nnx.Optimizer[SequenceModel],
    frequencies: Frequencies | None,
    inputs: ArrayLike,
    targets: ArrayLike,
    seed: ArrayLike,
    *,
    objective: Objective,
) -> Array:
    """Updates ``model``, ``optimizer`` and ``frequencies`` in place by one step and returns its loss; compiled once.

    ``seed`` is ``step_seed(config, step)``, from which dropout follows too; ``frequencies`` start as
    ``start_frequencies(objective, split)``.
    """
    words = jnp.asarray(seed)
    dropout_key = jax.random.fold_in(jax.random.key(words[0]), words[1])
    followed = follow(frequencies, jnp.asarray(targets), objective)
    loss, gradients = nnx.value_and_grad(
        lambda model: training_loss(
            model, inputs, targets, words, dropout_key, objective=objective, frequencies=followed
        )
    )(model)
    optimizer.update(model, gradients)
    return loss
