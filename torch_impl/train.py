"""Training a sequence model with PyTorch and Lightning."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm.contrib.logging import logging_redirect_tqdm

from ..recsys import Split, TrainConfig, prepare_data
from ..recsys.run.model_config import ModelConfig
from ..recsys.run.progress import Progress, TrainResult
from ..recsys.run.recorder import finish_run
from ..recsys.run.run_directory import RunDirectory, claim_run, find_run
from ..recsys.run.side_information import side_information
from .devices import device_of, enough_memory
from .models import build_model
from .models.weights import load_weights
from .serve import ServedModel
from .training.callbacks import AtomicCheckpointIO, last_checkpoint, training_callbacks
from .training.lightning_module import SequenceData, SequenceModule
from .training.objective import try_loss

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


@enough_memory()
def train(config: TrainConfig) -> TrainResult:
    """Trains the model as ``config`` says and tests the weights of the epoch with the best validation NDCG@10.

    With ``train_on_valid`` there is no validation, and the last epoch's weights are tested.

    Writes to ``config.out``: config.json, catalog.parquet, data.json, metrics.csv (a row an epoch), best.safetensors,
    result.json, learning_curve.png and, after every epoch, torch-checkpoints/last.ckpt, from which ``resume``
    continues. Batches, negatives and dropout follow from (seed, epoch, step), so a killed and resumed run ends with the
    result of an uninterrupted one (on CUDA up to the rounding of PyTorch's own kernels, unless
    ``torch.use_deterministic_algorithms`` is on).

    Raises ``DataError`` for unusable data and ``ConfigError`` for unusable options, initial weights or folder, before
    the first step and with no folder left behind, and ``DivergedError`` once the loss or the weights are not finite:
    the folder keeps the best weights and the checkpoint of earlier epochs.
    """
    device = device_of(config.device)
    run = find_run(config, "torch")
    interactions, split = prepare_data(config)
    side = side_information(config, interactions)
    # Seeding is this run's business: the caller's generators continue as if nothing had been drawn.
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build_model(ModelConfig.from_train(config, split.num_items, side.num_features))
        model.start_items(side)
        if config.init_weights is not None:
            load_weights(model, config.init_weights)
            side.require_same(config.init_weights, "init_weights")
        if config.resume and run.best_weights.exists():
            side.require_same(run.best_weights, "resume")
        module = SequenceModule(model.to(device), config, split)
        try_loss(model, module.objective, config, split)
        with claim_run(run, config, interactions, split):
            progress = _fit(module, split, config, device, run)
    load_weights(model, run.best_weights)
    served = ServedModel(model.to(device), config.precision)
    test = served.evaluate(split.test_history, split.test_target, split, config=config)
    return finish_run(run, progress, test, name="PyTorch")


def _fit(
    module: SequenceModule, split: Split, config: TrainConfig, device: torch.device, run: RunDirectory
) -> Progress:
    """Trains until the epochs or the patience are used up, from the last checkpoint if there is one."""
    recorder, callbacks = training_callbacks(run, config)
    on_terminal = sys.stdout.isatty()
    if on_terminal:
        # Every refresh reads the loss, for which the host waits: not after every step.
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    checkpoint = last_checkpoint(run)
    with _quiet_lightning(), logging_redirect_tqdm():
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=_PRECISION[config.precision],  # pyright: ignore[reportArgumentType]
            max_epochs=config.epochs,
            check_val_every_n_epoch=config.eval_every,
            limit_val_batches=0 if config.train_on_valid else None,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            logger=False,
            enable_progress_bar=on_terminal,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=run.path,
        )
        trainer.fit(
            module,
            datamodule=SequenceData(split, config),
            ckpt_path=checkpoint if checkpoint.exists() else None,
            weights_only=True,
        )
    return recorder.progress


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silences Lightning's notes on the machine and on the checkpoint folder, which may be in use or elsewhere than
    when the run began: no news here."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
            # Lightning's own use of a class that PyTorch is about to rename.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning.pytorch")
            yield
    finally:
        log.setLevel(level)


if __name__ == "__main__":
    from .cli import main

    main()
