"""What the loggers have in common: a run in another program's records."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError
from ..files import replacing
from .events import EpochEnded, Event, RunEnded, RunFailed, RunStarted
from .progress import TrainResult

IDS = "tracking.json"
"""The file of a run's folder that has the ids under which other programs know it."""


class TrackedRun(ABC):
    """A callback that passes a run on: options at its start, each epoch's loss and metrics by the epoch's number, and
    at the end the test's metrics.

    Names of metrics are ``train_loss``, ``seconds``, ``valid/ndcg@10`` and so on, ``test/ndcg@10`` and so on. What the
    program's library raises becomes a ``ConfigError`` that names the logger.
    """

    name: ClassVar[str]

    def __call__(self, event: Event) -> None:
        try:
            if isinstance(event, RunStarted):
                self.start(event)
            elif isinstance(event, EpochEnded):
                of_valid = {f"valid/{name}": value for name, value in event.metrics.items()}
                self.log({"train_loss": event.train_loss, "seconds": event.seconds, **of_valid}, event)
            elif isinstance(event, RunEnded):
                self.end(event.result, {f"test/{name}": value for name, value in event.result.test.items()})
            elif isinstance(event, RunFailed):
                self.fail()
        except Exception as error:
            raise ConfigError(f"log_to: expected {self.name} to take the run, got: {error}") from error

    @abstractmethod
    def start(self, event: RunStarted) -> None:
        """Opens the run, of a resumed one the same as before."""

    @abstractmethod
    def log(self, values: Mapping[str, float], event: EpochEnded) -> None:
        """Takes the numbers of an epoch."""

    @abstractmethod
    def end(self, result: TrainResult, values: Mapping[str, float]) -> None:
        """Takes the numbers of the test and closes the run."""

    @abstractmethod
    def fail(self) -> None:
        """Closes a run that ends in an error; does nothing where it was never opened."""


def options_of(event: RunStarted) -> dict[str, Any]:
    """A run's options by name, and its framework."""
    return {"framework": event.framework, **asdict(event.config)}


def id_of(folder: Path, name: str) -> str | None:
    """The id that `keep_id` has kept for the logger ``name``."""
    path = folder / IDS
    return json.loads(path.read_text(encoding="utf-8")).get(name) if path.exists() else None


def keep_id(folder: Path, name: str, value: str) -> None:
    """Keeps the id under which the logger's program knows the run of ``folder``."""
    path = folder / IDS
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**known, name: value}, indent=2) + "\n", encoding="utf-8")
