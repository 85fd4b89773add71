"""One run of the study: train a cell from a seed, choose the epoch on validation, test it."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cce_minus.recsys import (
    Split,
    TrainConfig,
    epoch_batches,
    eval_batches,
    evaluation_options,
    mean_targets,
    num_batches,
    prepare_data,
    ranking_metrics,
)
from cce_minus.recsys.option_checks import require_defaults
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.progress import Progress
from cce_minus.torch_impl import sampled_linear_cross_entropy
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.models.sequence_model import SequenceModel
from cce_minus.torch_impl.serving.evaluate import evaluate
from cce_minus.torch_impl.serving.ranking import target_ranks
from cce_minus.torch_impl.training.objective import objective_of, training_loss
from torch import Tensor

from .cells import Cell, Run
from .step import Loss, TrainingStep

EVALUATED_AT_ONCE = 1024  # users; their scores of a chunk of the catalog are all that evaluation holds


def train_run(run: Run, data: Path, device: torch.device) -> dict[str, object]:
    """Trains and tests ``run``; returns its metrics and curve by the names of the CSV's columns.

    Equal to the training command with the same options, but that a GPU runs steps as a CUDA graph, evaluation takes
    more users at once, and the best epoch's weights stay in memory.
    """
    config = run.cell.config(data, run.seed)
    split = prepared(run.cell, data)
    torch.manual_seed(config.seed)
    model = build_model(ModelConfig.from_train(config, split.num_items)).to(device)
    step = TrainingStep(model, config, loss_of(run.cell, config, split))
    validation = Validation(config, split, device)
    progress = Progress()
    curve: list[float] = []
    best: dict[str, Tensor] = {}
    started = time.perf_counter()
    total = num_batches(split.train, batch_size=config.batch_size)
    while progress.epochs < config.epochs and progress.validations_since_best < config.patience:
        epoch = progress.epochs
        for index, (inputs, targets) in enumerate(zip(*epoch_tensors(config, split, epoch, device), strict=True)):
            step(inputs, targets, epoch * total + index)
        loss = float(step.loss_sum) / total
        step.loss_sum.zero_()
        metrics = validation.metrics(model) if (epoch + 1) % config.eval_every == 0 else {}
        if metrics:
            curve.append(metrics["ndcg@10"])
        if progress.update(loss, metrics, time.perf_counter() - started):
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        options: dict[str, Any] = evaluation_options(config, split) | {"batch_size": EVALUATED_AT_ONCE}
        test = evaluate(model, split.test_history, split.test_target, **options)
    return {
        "rows": round(mean_targets(split.train, batch_size=config.batch_size, max_length=config.max_length)),
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "steps_per_epoch": total,
        "train_loss": progress.losses[progress.best_epoch],
        **{f"valid_{name}": progress.best_metrics[name] for name in ("ndcg@10", "hr@10")},
        **{f"test_{name}": test[name] for name in ("ndcg@10", "hr@10", "coverage@10", "surprisal@10")},
        "valid_curve": " ".join(f"{value:.5f}" for value in curve),
        "train_seconds": progress.seconds,
    }


class Validation:
    """NDCG@10 and HR@10 of the validation part, which stays on the device; the host waits once."""

    def __init__(self, config: TrainConfig, split: Split, device: torch.device) -> None:
        batches = list(
            eval_batches(
                split.valid_history, split.valid_target, batch_size=EVALUATED_AT_ONCE, max_length=config.max_length
            )
        )
        self._count = len(split.valid_target)
        self._bf16 = config.precision == "bf16"
        self._batches = [
            tuple(torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.target)) for batch in batches
        ]

    def metrics(self, model: SequenceModel) -> dict[str, float]:
        model.eval()
        rows = model.item_rows().detach()
        with torch.no_grad(), torch.autocast(rows.device.type, torch.bfloat16, enabled=self._bf16):
            ranks = [
                target_ranks(model.next_item_hidden(inputs, rows), rows, target) for inputs, target in self._batches
            ]
        model.train()
        return ranking_metrics(torch.cat(ranks)[: self._count].cpu().numpy())


def prepared(cell: Cell, data: Path) -> Split:
    """The parts of the cell's data set, kept for the next run of the same process. Raises ``ConfigError`` for options
    of the training command that a run of the study would ignore."""
    config = cell.config(data, 0)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    require_defaults(_NOT_HERE, "the study", vars(config), defaults)
    return _prepared(tuple((field.name, getattr(config, field.name)) for field in _DATA_OPTIONS))


_NOT_HERE = ("train_on_valid", "item_features", "item_vectors", "init_weights")
_DATA_OPTIONS = tuple(field for field in dataclasses.fields(TrainConfig) if field.metadata["group"] == "Data")


@functools.lru_cache(maxsize=2)
def _prepared(options: tuple[tuple[str, Any], ...]) -> Split:
    return prepare_data(TrainConfig(**dict(options)))[1]


def epoch_tensors(config: TrainConfig, split: Split, epoch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """An epoch's inputs and targets, both (steps, batch_size, max_length) int32, on ``device`` in one transfer each."""
    batches = list(epoch_batches(config, split, epoch))
    inputs, targets = (np.stack([getattr(batch, name) for batch in batches]) for name in ("inputs", "targets"))
    return torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)


def loss_of(cell: Cell, config: TrainConfig, split: Split) -> Loss:
    """The mean loss of a batch as the cell's method has it."""
    if cell.method.one_draw:
        return functools.partial(_one_draw_loss, num_negatives=config.num_negatives)
    objective = objective_of(config, split)

    def loss(model: SequenceModel, inputs: Tensor, targets: Tensor, seed: Tensor) -> Tensor:
        return training_loss(model, inputs, targets, seed, objective=objective)

    return loss


def _one_draw_loss(
    model: SequenceModel, inputs: Tensor, targets: Tensor, seed: Tensor, *, num_negatives: int
) -> Tensor:
    """The draw is torch's, which is seeded for the step as ``seed`` is."""
    rows = model.item_rows()
    ids = torch.randint(len(rows), (num_negatives,), device=rows.device)
    return sampled_linear_cross_entropy(model(inputs, rows), rows, targets, ids)
