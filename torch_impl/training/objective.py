"""The training loss of a configuration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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

Loss = Callable[..., Tensor]
"""`training_loss`, or another function with its arguments."""


def objective_of(config: TrainConfig, split: Split) -> Objective:
    """Returns what a run minimises, to be made once for the run; raises ``ConfigError`` for options that the samplers
    refuse."""
    with options_refused(ArgumentError):
        return make_objective(**loss_options(config, split))


def start_frequencies(objective: Objective, split: Split) -> Tensor | None:
    """Returns the estimate (V,) float32 of how often each item is a target, from the training part; None where the
    objective follows none."""
    if objective.frequency_rate is None:
        return None
    return torch.from_numpy(smoothed_frequencies(item_counts(split.train, split.num_items)))


def follow(frequencies: Tensor | None, targets: Tensor, objective: Objective) -> Tensor | None:
    """Returns ``frequencies`` moved towards the batch's targets, before its loss."""
    if frequencies is None:
        return None
    assert objective.frequency_rate is not None
    return update_frequencies(frequencies, targets, rate=objective.frequency_rate)


def training_loss(
    model: SequenceModel,
    inputs: Tensor,
    targets: Tensor,
    seed: int | Tensor,
    *,
    objective: Objective,
    frequencies: Tensor | None = None,
) -> Tensor:
    """Returns the mean loss (float32 scalar) of a batch: ``inputs`` and ``targets`` (B, L), -100 ignored.

    ``seed`` is ``step_seed(config, step)``, as an int or a tensor: it draws the step's negatives, the same in both
    frameworks. Dropout follows ``model.training`` and torch's own generator. ``objective`` is ``objective_of(config,
    split)``; ``frequencies`` (V,), if it follows any, are those with this batch's targets in them.
    """
    rows = model.item_rows()
    operands = model(inputs, rows), rows, targets
    o = objective
    if o.buckets is not None:
        return scalable_linear_cross_entropy(*operands, **vars(o.buckets), seed=seed, impl=o.impl)
    assert o.sampler is not None
    if o.loss in ("bce", "gbce"):
        return sampled_linear_binary_cross_entropy(*operands, o.sampler, gbce_t=o.gbce_t, seed=seed, impl=o.impl)
    assert o.loss == "softmax", o.loss
    log_q = None if frequencies is None else frequencies.log()
    return sampled_linear_cross_entropy(
        *operands, o.sampler, log_q=log_q, logq_correction=o.logq_correction, seed=seed, impl=o.impl
    )


def row_loss(model: SequenceModel, rows: Tensor, given: WorkingSet, *, objective: Objective) -> Tensor:
    """Returns the same loss of a batch whose inputs and targets are places of the working set ``given``, by its
    ``rows`` (T, D) of the item table."""
    rows = model.with_features(rows, given.ids)
    assert given.inputs is not None
    operands = model(given.inputs, rows), rows, given.target, given
    o = objective
    if o.loss in ("bce", "gbce"):
        return sampled_linear_binary_cross_entropy(*operands, gbce_t=o.gbce_t, impl=o.impl)
    return sampled_linear_cross_entropy(*operands, logq_correction=o.logq_correction, impl=o.impl)


def shared_row_loss(
    model: SequenceModel,
    rows: Tensor,
    given: WorkingSet,
    inputs: Tensor,
    *,
    objective: Objective,
    catalog: CatalogShard,
) -> Tensor:
    """Returns the same loss of a rank's ``inputs`` (B, L), by the ``rows`` (T, D) that all ranks' batches touch of its
    part of the table. Gradients of rows are those of the sum of all ranks' losses."""
    assert objective.loss == "softmax", objective.loss
    rows, device = model.with_features(rows, given.ids), rows.device.type
    # what autocast rounds to anyway crosses the network so
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    hidden = model(inputs, input_rows(rows, given, catalog=catalog, dtype=dtype))
    return sampled_linear_cross_entropy(
        hidden,
        rows,
        given.target,
        given,
        logq_correction=objective.logq_correction,
        catalog=catalog,
        impl=objective.impl,
    )


def step_seed(config: TrainConfig, step: int) -> int:
    """Returns ``fold_seed(config.seed, step)``."""
    return fold_seed(config.seed, step)
