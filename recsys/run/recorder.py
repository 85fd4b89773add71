"""What a training writes into its run's folder: after each epoch, and at the end."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..files import usable
from ..protocol.cutoffs import parse_cutoffs
from .callbacks import Callbacks
from .checkpoint_file import write_checkpoint
from .config import TrainConfig
from .events import EpochEnded, RunEnded
from .learning_curve import plot_learning_curve
from .metrics_log import MetricsLog
from .profile import PROFILE, Profile
from .progress import SELECTION_METRIC, Progress, TrainResult, metric_names
from .run_directory import NAMES, WRITABLE, RunDirectory
from .tensor_file import Stored, take_part

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The state of a training after an epoch; both calls may wait for the device.

    ``write_weights(path)`` writes what was validated; ``tensors()`` are what training goes on from, by name. Later
    steps leave them as they are, unless the snapshot ``is_live``: a large state, of which there is no copy. Processes
    that gather what one of them writes do so in the calls of all of them.
    """

    write_weights: Callable[[Path], None]
    tensors: Callable[[], Mapping[str, Stored]]
    is_live: bool = False


MOST_COPIED = 2**32
"""Bytes of a state that is copied on its device, to leave it while training goes on; three copies may wait, there and
in the host's memory."""


def is_too_large_to_copy(size: int, memory: int) -> bool:
    """Whether a snapshot of a state of ``size`` bytes is live on a device of ``memory`` bytes."""
    return size > min(MOST_COPIED, memory // 8)


@dataclass(frozen=True)
class Epochs:
    """What is to be written of epochs that have ended: their ``rows`` in the log, the state ``best`` whose weights are
    to be kept, if any of them has it, and the state ``last`` with its ``progress``."""

    rows: tuple[dict[str, Any], ...]
    best: Snapshot | None
    last: Snapshot
    progress: Progress

    @property
    def last_epoch(self) -> EpochEnded:
        """The last of them, as callbacks are told it."""
        return EpochEnded(**self.rows[-1], is_best=self.progress.best_epoch == self.rows[-1]["epoch"])

    def followed_by(self, later: Epochs) -> Epochs:
        """Both as one: of the checkpoints the later one, of the best weights the later best."""
        return Epochs(self.rows + later.rows, later.best or self.best, later.last, later.progress)


class Recorder:
    """Keeps ``progress`` up to date, and writes what epochs leave. ``steps`` are an epoch's; ``popularity`` comes to
    `popularity_metrics` by the end. One that does not ``write`` keeps the progress alone, and takes part in what
    another process writes.

    The best weights come first, then the rows of the metrics log, then the checkpoint: a run killed in between repeats
    epochs from the checkpoint before, and writes the same again.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        progress: Progress,
        steps: int,
        popularity: Future[dict[str, dict[str, float]]],
        *,
        writes: bool = True,
    ) -> None:
        self.progress, self._popularity = progress, popularity
        self._run, self._keep_last, self._steps = run, not config.has_validation, steps
        self._weights_of, self._rows, self._checkpoint_of = progress.best_epoch, progress.epochs, progress.epochs
        self._started = time.perf_counter() - progress.seconds
        self._writes = writes
        if not writes:
            return
        names = metric_names(parse_cutoffs(config.metrics_at))
        with usable("out", WRITABLE):
            self._log = MetricsLog(run.metrics_log, metric_names=names, resume_after=progress.epochs - 1)

    def end_epoch(self, loss: float, metrics: dict[str, float], snapshot: Snapshot) -> Epochs:
        """Takes an epoch that has ended with ``snapshot`` into ``progress`` and returns what is to be written of it;
        ``metrics`` is empty without validation."""
        seconds = time.perf_counter() - self._started
        best = self.progress.update(loss, metrics, seconds, keep_last=self._keep_last)
        logger.info("%s", self.progress.line(metrics))
        epoch = self.progress.epochs - 1
        step = (epoch + 1) * self._steps
        row = {"epoch": epoch, "step": step, "train_loss": loss, "metrics": metrics, "seconds": seconds}
        # a copy: the next epoch changes the progress while this one is written
        return Epochs((row,), snapshot if best else None, snapshot, copy.deepcopy(self.progress))

    def results_are_written(self) -> bool:
        """Whether the weights in the folder are the best epoch's and the log has all epochs."""
        return self._weights_of == self.progress.best_epoch and self._rows == self.progress.epochs

    def all_is_written(self) -> bool:
        """Whether the checkpoint in the folder is of the last epoch that has ended."""
        return self._checkpoint_of == self.progress.epochs

    def finish(self, test: dict[str, float]) -> None:
        """Writes the result with the metrics of the ``test``, and draws the log; raises ``ConfigError`` for a folder
        that cannot be written."""
        if not self._writes:
            return
        of_part = self._popularity.result()
        of_valid = {"popularity": of_part["valid"][SELECTION_METRIC]} if of_part["valid"] else {}
        logs = {NAMES[self._run.framework]: self._run.metrics_log}
        with usable("out", WRITABLE):
            self.result(test).write(self._run.result)
            plot_learning_curve(logs, self._run.learning_curve, baselines=of_valid)

    def result(self, test: dict[str, float]) -> TrainResult:
        """The outcome with the metrics of the ``test``."""
        popularity = self._popularity.result()["test"]
        weights = self._run.best_weights
        return TrainResult.from_progress(self.progress, test=test, weights=weights, popularity=popularity)

    def write(self, epochs: Epochs) -> None:
        """Writes what epochs leave; raises ``ConfigError`` for a folder that cannot be written."""
        if not self._writes:
            if epochs.best is not None:
                epochs.best.write_weights(self._run.best_weights)
            take_part(epochs.last.tensors())
            self._weights_of, self._rows = epochs.progress.best_epoch, epochs.progress.epochs
            self._checkpoint_of = epochs.progress.epochs
            return
        with usable("out", WRITABLE, SafetensorError):
            if epochs.best is not None:
                epochs.best.write_weights(self._run.best_weights)
                self._weights_of = epochs.progress.best_epoch
            for row in epochs.rows:
                self._log.append(**row)
            self._rows = epochs.progress.epochs
            write_checkpoint(self._run, epochs.last.tensors(), epochs.progress)
            self._checkpoint_of = epochs.progress.epochs


def finish_run(run: RunDirectory, result: TrainResult, profile: Profile | None, callbacks: Callbacks) -> TrainResult:
    """Writes the ``profile`` of a finished run, if any, and tells its ``result``, to ``callbacks`` too."""
    if profile is not None:
        with usable("out", WRITABLE):
            logger.info("%s", profile.write(run.path / PROFILE))
    logger.info("%s", result.summary())
    callbacks.tell(RunEnded(result))
    return result
