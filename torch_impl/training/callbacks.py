"""Lightning callbacks of a training run: the record of its epochs, early stopping and checkpoints."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ...recsys import ConfigError, TrainConfig
from ...recsys.files import replacing, usable
from ...recsys.run.losses import require_finite_weights
from ...recsys.run.progress import SELECTION_METRIC, Progress
from ...recsys.run.recorder import Recorder
from ...recsys.run.run_directory import WRITABLE, RunDirectory
from ..models.weights import largest_weight, save_weights
from .lightning_module import SequenceModule


class EpochRecorder(Callback):
    """Keeps ``progress`` with a `Recorder`; its state travels in the checkpoint."""

    def __init__(self, run: RunDirectory, config: TrainConfig) -> None:
        self.run = run
        self.config = config
        self.progress = Progress()
        self._recorder: Recorder | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._recorder = Recorder(self.run, self.config, self.progress)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SequenceModule)
        assert self._recorder is not None
        model, loss = pl_module.model, pl_module.epoch_losses.mean()
        require_finite_weights(largest_weight(model), trainer.current_epoch)
        self._recorder.end_epoch(
            step=trainer.global_step,
            loss=loss,
            metrics=pl_module.epoch_metrics,
            save_weights=lambda path: save_weights(model, path),
        )

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
    """Writes a checkpoint beside its place and renames it, so that a kill leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with usable("out", WRITABLE), replacing(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        try:
            return super().load_checkpoint(path, *arguments, **options)
        # What unpickling raises for a damaged file, beside the archive's own RuntimeError.
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            reason = f"{type(error).__name__}: {error!s:.100}"
            raise ConfigError(f"resume: expected a checkpoint that can be read, got {path} ({reason})") from error


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
