"""The training loss of a configuration."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from ...kernels import ArgumentError, fold_seed
from ...kernels.negatives.objectives import Objective, make_objective
from ...recsys import Split, TrainConfig, item_counts, loss_options, smoothed_frequencies
from ...recsys.option_checks import options_refused
from ..loss.binary import sampled_linear_binary_cross_entropy
from ..loss.catalog_shard import CatalogShard
from ..loss.cross_entropy import sampled_linear_cross_entropy
from ..loss.frequencies import update_frequencies
from ..loss.scalable import scalable_linear_cross_entropy
from ..loss.working_set import WorkingSet
from ..models.sequence_model import SequenceModel
from ..tables.shard_rows import input_rows

Loss = Callable[..., Array]
"""`training_loss`, or another function with its arguments."""


def objective_of(config: TrainConfig, split: Split) -> Objective:
    """Returns what a run minimises, to be made once for the run; raises ``ConfigError`` for options that the samplers
    refuse."""
    with options_refused(ArgumentError):
        return make_objective(**loss_options(config, split))


def start_frequencies(objective: Objective, split: Split) -> Array | None:
    """Returns the estimate (V,) float32 of how often each item is a target, from the training part; None where the
    objective follows none."""
    if objective.frequency_rate is None:
        return None
    return jnp.asarray(smoothed_frequencies(item_counts(split.train, split.num_items)), jnp.float32)


def follow(frequencies: Array | None, targets: Array, objective: Objective) -> Array | None:
    """Returns ``frequencies`` moved towards the batch's targets, before its loss."""
    if frequencies is None:
        return None
    assert objective.frequency_rate is not None
    return update_frequencies(frequencies, targets, rate=objective.frequency_rate)


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


def row_loss(
    model: SequenceModel, rows: Array, given: WorkingSet, dropout_key: Array | None = None, *, objective: Objective
) -> Array:
    """Returns the same loss of a batch whose inputs and targets are places of the working set ``given``, by its
    ``rows`` (T, D) of the item table."""
    rows = model.with_features(rows, given.ids)
    assert given.inputs is not None
    hidden = model(given.inputs, rows, rngs=None if dropout_key is None else nnx.Rngs(dropout=dropout_key))
    operands = hidden.astype(model.dtype), rows, given.target, given
    o = objective
    if o.loss in ("bce", "gbce"):
        return sampled_linear_binary_cross_entropy(*operands, gbce_t=o.gbce_t, impl=o.impl)
    return sampled_linear_cross_entropy(*operands, logq_correction=o.logq_correction, impl=o.impl)


def shared_row_loss(
    inputs: Array, model: SequenceModel, rows: Array, given: WorkingSet, dropout_key: Array | None = None, *,
    objective: Objective, catalog: CatalogShard,
) -> Array:  # fmt: skip
    """Returns the same loss of this device's batch, ``inputs`` (B, L), inside ``jax.shard_map``: of a working set made
    with the ``catalog`` that devices share, and its ``rows`` (T, D)."""
    assert objective.loss == "softmax", objective.loss
    rows = model.with_features(rows, given.ids)
    # what crosses the network is half as much in the dtype of a bfloat16 model's products
    dtype = jnp.bfloat16 if model.dtype == jnp.bfloat16 else None
    embedded = input_rows(rows, given, catalog=catalog, dtype=dtype)
    hidden = model(inputs, embedded, rngs=None if dropout_key is None else nnx.Rngs(dropout=dropout_key))
    return sampled_linear_cross_entropy(
        hidden.astype(model.dtype), rows, given.target, given, logq_correction=objective.logq_correction,
        catalog=catalog, impl=objective.impl,
    )  # fmt: skip


def step_seed(config: TrainConfig, step: int) -> npt.NDArray[np.uint32]:
    """Returns ``fold_seed(config.seed, step)`` as two words (high, low), uint32: an operand, not a constant."""
    seed = fold_seed(config.seed, step)
    return np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
