"""Weights & Biases' record of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .events import EpochEnded, RunStarted
from .progress import TrainResult
from .tracked_run import TrackedRun, id_of, keep_id, options_of

PROJECT = "cce-minus"
"""The project of a run, unless WANDB_PROJECT names another."""


class WandbLog(TrackedRun):
    """A run of Weights & Biases, whose files are in the run's folder ``wandb``. It is offline unless ``WANDB_MODE``
    says otherwise: ``wandb sync`` sends it later. The epoch is the axis of its charts; a resumed run goes on with the
    same id."""

    name = "wandb"

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, event: RunStarted) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        known = id_of(event.folder, self.name) if event.resumed else None
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=event.folder.name,
            dir=str(event.folder),
            config=options_of(event),
            mode=None if os.environ.get("WANDB_MODE") else "offline",
            id=known,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="epoch")
        keep_id(event.folder, self.name, self._run.id)

    def log(self, values: Mapping[str, float], event: EpochEnded) -> None:
        self._run.log({"epoch": event.epoch, **values})

    def end(self, result: TrainResult, values: Mapping[str, float]) -> None:
        self._run.summary.update({"best_epoch": result.best_epoch, **values})
        self._run.finish()

    def fail(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=1)
