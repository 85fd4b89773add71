"""What a training writes into its run's folder beside checkpoints: after each epoch, and at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from ..files import usable
from ..protocol.cutoffs import parse_cutoffs
from .config import TrainConfig
from .learning_curve import plot_learning_curve
from .metrics_log import MetricsLog
from .progress import Progress, TrainResult, metric_names
from .run_directory import WRITABLE, RunDirectory

logger = logging.getLogger(__name__)


class Recorder:
    """Keeps ``progress`` up to date, with the metrics log and the best epoch's weights.

    Call `end_epoch` before the checkpoint of the same epoch is written: a run killed in between repeats that epoch and
    writes the same again.
    """

    def __init__(self, run: RunDirectory, config: TrainConfig, progress: Progress) -> None:
        self.progress = progress
        self._run, self._keep_last = run, config.train_on_valid
        self._started = time.perf_counter() - progress.seconds
        names = metric_names(parse_cutoffs(config.metrics_at))
        with usable("out", WRITABLE):
            self._log = MetricsLog(run.metrics_log, metric_names=names, resume_after=progress.epochs - 1)

    def end_epoch(
        self, *, step: int, loss: float, metrics: dict[str, float], save_weights: Callable[[Path], None]
    ) -> None:
        """Records an epoch that ended with ``step`` steps done; ``metrics`` is empty without validation."""
        seconds = time.perf_counter() - self._started
        epoch = self.progress.epochs
        with usable("out", WRITABLE):
            if self.progress.update(loss, metrics, seconds, keep_last=self._keep_last):
                save_weights(self._run.best_weights)
            self._log.append(epoch=epoch, step=step, train_loss=loss, metrics=metrics, seconds=seconds)
        logger.info("%s", self.progress.line(metrics))


def finish_run(run: RunDirectory, progress: Progress, test: dict[str, float], *, name: str) -> TrainResult:
    """Writes the result and the picture of a finished run, whose curve is called ``name``."""
    result = TrainResult.from_progress(progress, test=test, weights=run.best_weights)
    with usable("out", WRITABLE):
        result.write(run.result)
        plot_learning_curve({name: run.metrics_log}, run.learning_curve)
    logger.info("%s", result.summary())
    return result
