"""What a training tells its callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .config import TrainConfig
from .progress import TrainResult


@dataclass(frozen=True)
class RunStarted:
    """A training begins, or goes on where it is ``resumed``, with the epoch ``first_epoch`` (from 0).

    ``config`` are its options, with what was left to the log resolved; ``folder`` is the run's, which is there by now;
    ``framework`` is "torch" or "jax". A run that has no epochs left is told too, with ``first_epoch`` the number of
    those that it has.
    """

    config: TrainConfig
    framework: str
    folder: Path
    first_epoch: int
    resumed: bool


@dataclass(frozen=True)
class EpochEnded:
    """An epoch (from 0) has been trained, and validated where that was due.

    ``step`` counts the batches so far, ``train_loss`` is the mean over the epoch, ``metrics`` are validation's by name,
    ``ndcg@10`` and so on, empty without validation. ``seconds`` are of training and validation since the run began.
    ``is_best`` says whether its weights are the ones to keep so far: the best validation's, or without a validation
    part each epoch's. These are what metrics.csv has. The files of the epoch may still be being written.
    """

    epoch: int
    step: int
    train_loss: float
    metrics: Mapping[str, float]
    seconds: float
    is_best: bool


@dataclass(frozen=True)
class RunEnded:
    """The training is over and its folder whole; ``result`` is what ``train`` returns."""

    result: TrainResult


@dataclass(frozen=True)
class RunFailed:
    """The training ends with ``error``, which is raised after this: so that what a callback holds open can be
    closed."""

    error: BaseException


class Answer(Enum):
    """What a callback may answer to `EpochEnded`."""

    STOP = "stop"


STOP = Answer.STOP
"""The answer that ends a training after this epoch, as if its patience were used up: the best weights are tested and
kept. Any other answer, and any to another event, says nothing."""

Event = RunStarted | EpochEnded | RunEnded | RunFailed

Callback = Callable[[Event], object]
"""A function, or an object with ``__call__``, that each event is told."""
