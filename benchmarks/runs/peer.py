"""Epochs of RecTools' SASRec, on the same training rows, sizes, precision and batches as ours."""

from __future__ import annotations

import importlib
import logging
import statistics
import time
import warnings
from typing import Any

import numpy as np
import torch
from cce_minus.recsys import Split, TrainConfig, prepare_data

from .cases import Options
from .epoch import FIRST, LAST
from .results import version_of

RECTOOLS = "rectools"


class PeerMissingError(Exception):
    """RecTools that is not installed, or does not import."""


def check_rectools() -> None:
    """Raises ``PeerMissingError`` that says why there is nothing to compare with."""
    require_rectools()


def require_rectools() -> Any:
    """Its module of SASRec; raises ``PeerMissingError``."""
    try:
        return importlib.import_module("rectools.models.nn.transformers.sasrec")
    except Exception as error:  # of whatever a package of another version raises
        raise PeerMissingError(
            f"RecTools does not import ({type(error).__name__}: {error}); it needs pandas < 3 and pytorch-lightning"
        ) from error


def measure_rectools(options: Options, loss: Options) -> dict[str, object]:
    """``seconds``, the median of an epoch's steps with batches made on the way, and how many ``steps`` it has."""
    sasrec = require_rectools()
    config = TrainConfig(**options)
    split = prepare_data(config)[1]
    torch.manual_seed(config.seed)
    model = sasrec.SASRecModel(
        n_blocks=config.num_blocks,
        n_heads=config.num_heads,
        n_factors=config.dim,
        dropout_rate=config.dropout,
        session_max_len=config.max_length,
        lr=config.learning_rate,
        batch_size=config.batch_size,
        get_trainer_func=_trainer,
        get_trainer_func_kwargs={"precision": config.precision},
        **loss,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        model.fit(_dataset(split))
    # The model trains with a copy of its trainer, and so of the clock.
    (clock,) = (each for each in model.fit_trainer.callbacks if hasattr(each, "epochs_took"))
    return {
        "seconds": statistics.median(clock.epochs_took[FIRST - 1 :]),
        "steps": clock.steps,
        "peer": f"rectools {version_of('rectools')}, pytorch-lightning {version_of('pytorch-lightning')}",
    }


def _dataset(split: Split) -> Any:
    """The rows that ours trains on; a user's events are a second apart."""
    pandas, rectools, dataset = (importlib.import_module(name) for name in ("pandas", "rectools", "rectools.dataset"))
    lengths, starts = split.train.lengths, split.train.offsets[:-1]
    place = np.arange(len(split.train.values)) - np.repeat(starts, lengths)
    events = {
        rectools.Columns.User: np.repeat(np.arange(len(lengths)), lengths),
        rectools.Columns.Item: split.train.values,
        rectools.Columns.Weight: 1.0,
        rectools.Columns.Datetime: np.datetime64("2020-01-01") + place.astype("timedelta64[s]"),
    }
    return dataset.Dataset.construct(pandas.DataFrame(events))


def _trainer(precision: str) -> Any:
    """RecTools' own trainer with a clock, and with mixed precision if asked for."""
    lightning: Any = importlib.import_module("pytorch_lightning")

    class Clock(lightning.Callback):
        def __init__(self) -> None:
            self.epochs_took: list[float] = []
            self.steps = 0
            self.began = 0.0

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            _wait()
            self.began = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            _wait()
            self.epochs_took.append(time.perf_counter() - self.began)
            self.steps = trainer.num_training_batches

    return lightning.Trainer(
        max_epochs=LAST,
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision],
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
