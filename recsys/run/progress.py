"""What a run has reached so far: kept in every checkpoint, and summed up in the result."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ..protocol.cutoffs import SELECTION_CUTOFF
from ..protocol.metrics import RANK_METRICS

METRIC_NAMES = (*RANK_METRICS, "coverage", "surprisal")
"""The metrics of a run, by the name before ``@k``."""

SELECTION_METRIC = f"ndcg@{SELECTION_CUTOFF}"


_TOLD = (SELECTION_METRIC, f"hr@{SELECTION_CUTOFF}")


def metric_names(cutoffs: Sequence[int]) -> tuple[str, ...]:
    """The columns of a run's metrics log: every metric at every k of ``cutoffs``."""
    return tuple(f"{name}@{k}" for k in cutoffs for name in METRIC_NAMES)


@dataclass
class Progress:
    """State of a run after its last finished epoch; plain numbers, so that it can be stored as JSON.

    ``is_warm``: its optimizer began with an earlier run's state.
    """

    losses: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_metrics: dict[str, float] = field(default_factory=dict)
    validations_since_best: int = 0
    seconds: float = 0.0
    is_warm: bool = False

    def update(self, train_loss: float, metrics: dict[str, float], seconds: float, *, keep_last: bool = False) -> bool:
        """Adds one epoch and says whether its weights are the ones to keep.

        ``metrics`` is empty without validation. Kept are those of the best validation so far (NaN is never the best),
        or, with ``keep_last``, of a run that never validates, those of the last epoch.
        """
        self.losses.append(train_loss)
        self.seconds = seconds
        if keep_last:
            self.best_epoch = self.epochs - 1
            return True
        if not metrics:
            return False
        if metrics[SELECTION_METRIC] > self.best_metrics.get(SELECTION_METRIC, -math.inf):
            self.best_epoch, self.best_metrics, self.validations_since_best = self.epochs - 1, metrics, 0
            return True
        self.validations_since_best += 1
        return False

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.losses)

    def line(self, metrics: dict[str, float]) -> str:
        """The last epoch in one line for a terminal of 80 columns; the log has all metrics."""
        measured = "".join(f"  {name} {metrics[name]:.4f}" for name in _TOLD if name in metrics)
        return f"epoch {self.epochs - 1}  loss {self.losses[-1]:.4f}{measured}  {self.seconds:.1f} s"


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a run: metrics of the best epoch's weights on test and validation, ``ndcg@10`` and so on.

    Of a run with ``train_on_valid``, the best epoch is the last one and ``valid`` is empty; with ``split = none``
    ``test`` and ``popularity`` are empty too. ``losses`` has each epoch's
    mean training loss, ``seconds`` the time of training and validation, summed over resumed parts; epochs count from 0.
    ``weights`` is the path of the best epoch's weights, in ``result.json`` relative to it. ``popularity`` is what
    ranking by popularity reaches on test.
    """

    test: dict[str, float]
    valid: dict[str, float]
    best_epoch: int
    losses: list[float]
    seconds: float
    weights: str
    popularity: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_progress(
        cls, progress: Progress, *, test: dict[str, float], weights: Path, popularity: dict[str, float]
    ) -> TrainResult:
        return cls(
            test=test,
            valid=progress.best_metrics,
            best_epoch=progress.best_epoch,
            losses=progress.losses,
            seconds=progress.seconds,
            weights=str(weights),
            popularity=popularity,
        )

    def write(self, path: Path) -> None:
        """Writes the result as JSON."""
        record = asdict(self) | {"weights": os.path.relpath(self.weights, path.parent)}
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> TrainResult:
        """Reads what `write` wrote; raises ``ConfigError``."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path}: expected the result of a run, got: {error}") from error

    def summary(self) -> str:
        """For a terminal: the test, what popularity reaches, and whether more epochs may do better; or that there is no
        test."""
        test, popularity = (
            "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            for metrics in (self.test, self.popularity)
        )
        if not self.test:
            told = f"{len(self.losses)} epochs, {self.seconds:.1f} s, {self.weights}"
            return f"no test: every event was trained on  ({told})"
        line = f"test: {test}  (best epoch {self.best_epoch}, {self.seconds:.1f} s, {self.weights})"
        lines = [line, f"popularity: {popularity}"] if popularity else [line]
        if self.valid and self.best_epoch == len(self.losses) - 1:
            lines.append("the last epoch was the best: more --epochs may do better")
        return "\n".join(lines)
