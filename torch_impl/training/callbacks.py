"""Lightning callbacks of a training run: the record of its epochs, early stopping and checkpoints."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ...recsys import MetricsLog, TrainConfig, parse_cutoffs
from ...recsys.run.progress import SELECTION_METRIC, Progress, metric_names
from ...recsys.run.run_directory import RunDirectory
from ..models.weights import save_weights
from .lightning_module import SequenceModule

logger = logging.getLogger(__name__)


class EpochRecorder(Callback):
    """Keeps ``progress``, the metrics log and the best epoch's weights; its state travels in the checkpoint.

    Weights and log are written before the checkpoint of the same epoch. A run killed in between repeats that
    epoch and writes the same again.
    """

    def __init__(self, run: RunDirectory, config: TrainConfig) -> None:
        self.run = run
        self.config = config
        self.progress = Progress()
        self._log: MetricsLog | None = None
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter() - self.progress.seconds
        names = metric_names(parse_cutoffs(self.config.metrics_at))
        self._log = MetricsLog(self.run.metrics_log, metric_names=names, resume_after=self.progress.epochs - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SequenceModule)
        assert self._log is not None
        loss, metrics = pl_module.epoch_loss, pl_module.epoch_metrics
        seconds = time.perf_counter() - self._started
        if self.progress.update(loss, metrics, seconds, keep_last=self.config.train_on_valid):
            save_weights(pl_module.model, self.run.best_weights)
        self._log.append(
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            train_loss=loss,
            metrics=metrics,
            seconds=self.progress.seconds,
        )
        logger.info("%s", self.progress.line(metrics))

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.progress)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.progress = Progress(**state_dict)


class LastingEarlyStopping(EarlyStopping):
    """Early stopping that also holds for a run resumed after it had stopped."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill leaves the old one or the new
    one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        temporary = Path(f"{path}.tmp")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(path)


def training_callbacks(run: RunDirectory, config: TrainConfig) -> tuple[EpochRecorder, list[Callback]]:
    """Returns the recorder and all callbacks, in the order in which they act at an epoch's end."""
    recorder = EpochRecorder(run, config)
    stopping = (
        [] if config.train_on_valid else [LastingEarlyStopping(SELECTION_METRIC, patience=config.patience, mode="max")]
    )
    # With no monitor and one file name, every epoch replaces last.ckpt.
    checkpoint = ModelCheckpoint(
        run.checkpoints, "last", save_top_k=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return recorder, [*stopping, recorder, checkpoint]


def last_checkpoint(run: RunDirectory) -> Path:
    """The path of the run's checkpoint, whether or not one has been written."""
    return run.checkpoints / "last.ckpt"
