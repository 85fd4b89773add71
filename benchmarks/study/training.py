"""One run of the study: train a cell from a seed, choose the epoch on validation, test it."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import torch
from cce_minus.kernels.negatives.objectives import Objective
from cce_minus.kernels.negatives.samplers import UniformNegatives
from cce_minus.recsys import Split, TrainConfig, mean_targets, num_batches, prepare_data
from cce_minus.recsys.option_checks import require_defaults
from cce_minus.recsys.run.left_to_the_log import resolved
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.profile import Profile
from cce_minus.recsys.run.progress import Progress
from cce_minus.recsys.run.recorder import Epochs, Recorder, Snapshot
from cce_minus.recsys.run.training_loop import run_epochs
from cce_minus.torch_impl import sampled_linear_cross_entropy
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.models.sequence_model import SequenceModel
from cce_minus.torch_impl.training.launcher import fabric_of
from cce_minus.torch_impl.training.objective import Loss, training_loss
from cce_minus.torch_impl.training.trainer import Trainer
from torch import Tensor

from .cells import Cell, Run
from .results import describe


def train_run(run: Run, data: Path, device: torch.device) -> dict[str, object]:
    """Trains and tests ``run``; returns its metrics and curve by the names of the CSV's columns.

    Equal to the training command with the same options, but that the best epoch's weights stay in memory.
    """
    split = prepared(run.cell, data)
    config = resolved(run.cell.config(data, run.seed), split)
    torch.manual_seed(config.seed)
    model = build_model(ModelConfig.from_train(config, split.num_items)).to(device)
    trainer = Trainer(model, config, split, fabric_of(config, device), loss=loss_of(run.cell))
    progress = Progress()
    kept = InMemory(progress)

    def measure() -> dict[str, float]:
        model.load_state_dict(model.state_dict() | kept.weights())
        return trainer.test()

    test = run_epochs(trainer, config, progress, kept, Profile(), measure)
    return {
        **{name: value for name, value in describe(config).items() if name in _RESOLVED},
        "rows": round(mean_targets(split.train, batch_size=config.batch_size, max_length=config.max_length)),
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "steps_per_epoch": num_batches(split.train, batch_size=config.batch_size),
        "train_loss": progress.losses[progress.best_epoch],
        **{f"valid_{name}": progress.best_metrics[name] for name in ("ndcg@10", "hr@10")},
        **{f"test_{name}": test[name] for name in ("ndcg@10", "hr@10", "coverage@10", "surprisal@10")},
        "valid_curve": " ".join(f"{value:.5f}" for value in kept.curve),
        "train_seconds": progress.seconds,
    }


_RESOLVED = ("batch_size", "max_length", "negatives", "num_negatives", "group_size", "shuffle_rows", "logq_correction")


class InMemory(Recorder):
    """Keeps the best weights and the curve of the validations, and writes nothing."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.curve: list[float] = []
        self._best: Snapshot | None = None
        self._started = time.perf_counter()

    def end_epoch(self, loss: float, metrics: dict[str, float], snapshot: Snapshot) -> Epochs:
        if metrics:
            self.curve.append(metrics["ndcg@10"])
        if self.progress.update(loss, metrics, time.perf_counter() - self._started):
            assert not snapshot.is_live, "the study keeps states in memory"
            self._best = snapshot
        return Epochs((), None, snapshot, self.progress)

    def results_are_written(self) -> bool:
        return True

    def all_is_written(self) -> bool:
        return True

    def finish(self, test: dict[str, float]) -> None:
        pass

    def write(self, epochs: Epochs) -> None:
        pass

    def weights(self) -> dict[str, Tensor]:
        """What was validated in the best epoch, by the names of the model's state."""
        assert self._best is not None
        return {
            name.removeprefix("model/"): torch.from_numpy(tensor.array())
            for name, tensor in self._best.tensors().items()
            if name.startswith("model/")
        }


def prepared(cell: Cell, data: Path) -> Split:
    """The parts of the cell's data set, kept for the next run of the same process. Raises ``ConfigError`` for options
    of the training command that a run of the study would ignore."""
    config = cell.config(data, 0)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    require_defaults(_NOT_HERE, "the study", vars(config), defaults)
    return _prepared(tuple((field.name, getattr(config, field.name)) for field in _DATA_OPTIONS))


_NOT_HERE = (
    "train_on_valid", "item_features", "item_vectors", "init_weights", "from_run", "ema_decay", "table_dtype",
    "table_on", "deterministic", "profile", "log_to",
)  # fmt: skip
_DATA_OPTIONS = tuple(field for field in dataclasses.fields(TrainConfig) if field.metadata["group"] == "Data")


@functools.lru_cache(maxsize=2)
def _prepared(options: tuple[tuple[str, Any], ...]) -> Split:
    return prepare_data(TrainConfig(**dict(options)))[1]


def loss_of(cell: Cell) -> Loss:
    """The mean loss of a batch as the cell's method has it."""
    return _one_draw_loss if cell.method.one_draw else training_loss


def _one_draw_loss(
    model: SequenceModel, inputs: Tensor, targets: Tensor, seed: Tensor, *, objective: Objective, frequencies: None
) -> Tensor:
    """The draw is torch's, which is seeded for the step as ``seed`` is."""
    rows = model.item_rows()
    assert isinstance(objective.sampler, UniformNegatives)
    ids = torch.randint(len(rows), (objective.sampler.num_negatives,), device=rows.device)
    return sampled_linear_cross_entropy(model(inputs, rows), rows, targets, ids)
