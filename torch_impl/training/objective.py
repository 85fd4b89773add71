"""The training loss of a configuration, and the optimiser that minimises it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

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


@torch.no_grad()
def try_loss(model: SequenceModel, objective: Objective, config: TrainConfig, split: Split) -> None:
    """Computes the first batch's loss on the model's device, so that what only the loss refuses is a ``ConfigError``
    before a run claims its folder. Draws from torch's generator."""
    device = model.item_table.device
    batch = next(epoch_batches(config, split, 0))
    inputs, targets = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.targets))
    start = start_frequencies(objective, split)
    frequencies = None if start is None else start.to(device)
    with (
        options_refused(ArgumentError),
        torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
    ):
        training_loss(model, inputs, targets, step_seed(config, 0), objective=objective, frequencies=frequencies)


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


def step_seed(config: TrainConfig, step: int) -> int:
    """Returns ``fold_seed(config.seed, step)``."""
    return fold_seed(config.seed, step)


def make_optimizer(model: SequenceModel, config: TrainConfig) -> tuple[torch.optim.AdamW, LinearLR]:
    """Returns AdamW (betas 0.9, 0.999, eps 1e-8, decay on every parameter) and its warm-up, to step together.

    Step s (from 0) has learning rate ``learning_rate * min(1, (s + 1) / warmup_steps)``.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=config.weight_decay,
        # One pass over parameters, gradients and moments instead of a dozen: the table of a large catalog is most of
        # the step.
        fused=model.item_table.is_cuda,
    )
    warmup = max(config.warmup_steps, 1)
    return optimizer, LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
