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

from ..kernels import AllItems, UniformNegatives, fold_seed
from ..recsys import TrainConfig
from .loss import sampled_linear_cross_entropy
from .sasrec import SASRec


def training_loss(
    model: SASRec,
    inputs: ArrayLike,
    targets: ArrayLike,
    seed: ArrayLike,
    dropout_key: Array | None = None,
    *,
    sampler: UniformNegatives | AllItems,
    impl: str,
) -> Array:
    """Returns the mean loss (float32 scalar) of a batch: ``inputs`` and ``targets`` (B, L), -100 ignored.

    ``seed`` is ``step_seed(config, step)``: it draws the step's negatives, the same in both frameworks.
    Dropout acts when a key is given. ``sampler`` is ``negative_sampler(config)``, ``impl`` as in the loss.
    """
    rngs = None if dropout_key is None else nnx.Rngs(dropout=dropout_key)
    hidden = model(jnp.asarray(inputs), rngs=rngs).astype(model.dtype)
    return sampled_linear_cross_entropy(
        hidden,
        model.item_table[...],
        jnp.asarray(targets),
        sampler,
        seed=seed,
        impl=impl,
    )


def negative_sampler(config: TrainConfig) -> UniformNegatives | AllItems:
    """Returns the sampler of ``config``: every item when ``negatives`` is 0."""
    if config.negatives == 0:
        return AllItems()
    return UniformNegatives(config.negatives, config.group_size, config.shuffle_rows)


def step_seed(config: TrainConfig, step: int) -> npt.NDArray[np.uint32]:
    """Returns ``fold_seed(config.seed, step)`` as two words (high, low), uint32: an operand, not a
    constant."""
    seed = fold_seed(config.seed, step)
    return np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)


def make_optimizer(model: SASRec, config: TrainConfig) -> nnx.Optimizer[SASRec]:
    """Returns AdamW (betas 0.9, 0.999, eps 1e-8, decay on every parameter) with its warm-up.

    Step s (from 0) has learning rate ``learning_rate * min(1, (s + 1) / warmup_steps)``.
    """
    transformation = _adamw(config.learning_rate, config.warmup_steps, config.weight_decay)
    return nnx.Optimizer(model, transformation, wrt=nnx.Param)


# Cached because Optax's transformations equal only themselves: with a new one each time, every run in one
# process would compile its step again.
@cache
def _adamw(learning_rate: float, warmup_steps: int, weight_decay: float) -> optax.GradientTransformationExtraArgs:
    warmup = max(warmup_steps, 1)
    schedule = optax.schedules.linear_schedule(learning_rate / warmup, learning_rate, transition_steps=warmup - 1)
    return optax.adamw(schedule, b1=0.9, b2=0.999, eps=1e-8, weight_decay=weight_decay)


# Only what shapes the step is static: a whole TrainConfig would compile it again for another output folder.
# Donated: the old weights and moments make room for the new ones instead of standing beside them.
@partial(nnx.jit, static_argnames=("sampler", "impl"), donate_argnames=("model", "optimizer"))
def train_step(
    model: SASRec,
    optimizer: nnx.Optimizer[SASRec],
    inputs: ArrayLike,
    targets: ArrayLike,
    seed: ArrayLike,
    *,
    sampler: UniformNegatives | AllItems,
    impl: str,
) -> Array:
    """Updates ``model`` and ``optimizer`` in place by one step and returns its loss; compiled once.

    ``seed`` is ``step_seed(config, step)``, from which dropout follows too; ``sampler`` is
    ``negative_sampler(config)``, ``impl`` as in the loss.
    """
    words = jnp.asarray(seed)
    dropout_key = jax.random.fold_in(jax.random.key(words[0]), words[1])
    loss, gradients = nnx.value_and_grad(
        lambda model: training_loss(model, inputs, targets, words, dropout_key, sampler=sampler, impl=impl)
    )(model)
    optimizer.update(model, gradients)
    return loss
