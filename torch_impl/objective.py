"""The training loss of a configuration, and the optimiser that minimises it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from ..kernels import AllItems, UniformNegatives, fold_seed
from ..recsys import TrainConfig
from .loss import sampled_linear_cross_entropy
from .sasrec import SASRec


def training_loss(model: SASRec, inputs: Tensor, targets: Tensor, config: TrainConfig, step: int) -> Tensor:
    """Returns the mean loss (float32 scalar) of a batch: ``inputs`` and ``targets`` (B, L), -100 ignored.

    Step s draws the negatives of ``fold_seed(config.seed, s)``, the same in both frameworks. Dropout follows
    ``model.training`` and torch's own generator.
    """
    return sampled_linear_cross_entropy(
        model(inputs),
        model.item_table,
        targets,
        negative_sampler(config),
        seed=fold_seed(config.seed, step),
        impl=config.impl,
    )


def negative_sampler(config: TrainConfig) -> UniformNegatives | AllItems:
    """Returns the sampler of ``config``: every item when ``negatives`` is 0."""
    if config.negatives == 0:
        return AllItems()
    return UniformNegatives(config.negatives, config.group_size, config.shuffle_rows)


def make_optimizer(model: SASRec, config: TrainConfig) -> tuple[torch.optim.AdamW, LinearLR]:
    """Returns AdamW (betas 0.9, 0.999, eps 1e-8, decay on every parameter) and its warm-up, to step together.

    Step s (from 0) has learning rate ``learning_rate * min(1, (s + 1) / warmup_steps)``.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=config.weight_decay,
    )
    warmup = max(config.warmup_steps, 1)
    return optimizer, LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
