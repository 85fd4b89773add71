"""What the serving commands do with a finished run, in terms of a framework's model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..data.catalog import Catalog
from ..data.datasets import is_there
from ..data.interactions import Interactions
from ..data.known_events import in_catalog
from ..data.ragged import Ragged
from ..errors import ConfigError
from ..files import usable
from ..protocol.splits import Split
from ..run.config import TrainConfig
from ..run.experiment import read_events, split_events
from ..run.fingerprint import Fingerprint
from ..run.run_directory import RunDirectory
from ..run.tensor_file import Stored
from ..run.weights_file import read_config
from .candidates import Ids
from .evaluation import TakeRanks

logger = logging.getLogger(__name__)


class ServedModel(Protocol):
    """A trained model of either framework, in evaluation mode on its device."""

    def evaluate(
        self,
        histories: Ragged,
        targets: npt.NDArray[np.int32],
        split: Split,
        *,
        config: TrainConfig,
        take_ranks: TakeRanks | None = None,
    ) -> dict[str, float]:
        """Metrics of the targets after the histories, as ``config`` ranks them; ``take_ranks`` is given their ranks."""
        ...

    def recommend(
        self, histories: Ragged, k: int, *, filter_seen: bool, candidates: Ids | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The ids (rows, k) of the k best items after each history, best first, and their float32 scores (rows, k).

        ``candidates`` are ids of items (n,), by default all; ``filter_seen`` leaves out the items of the history. A
        place for which no item is left holds `NO_ITEM` and the score -inf. Raises ``ConfigError`` unless 1 <= k <= V.
        """
        ...

    def item_vectors(self) -> Stored:
        """Those that scores are products with (V, D): the table, or float32 with features."""
        ...


Load = Callable[[Path, str, str], ServedModel]
"""``load(weights file, device, precision)``: a model of the configuration in the file's metadata, which computes hidden
states in the precision of a run (``TrainConfig.precision``), as its training and its test did."""


@dataclass(frozen=True)
class ServedRun:
    """A run that has finished at least one validation, whichever framework trained it and wherever its folder is
    now."""

    files: RunDirectory
    config: TrainConfig
    catalog: Catalog

    @classmethod
    def open(cls, path: str | Path, data: str | None = None) -> ServedRun:
        """The run in the folder ``path``, with ``data`` in place of where its events were; those that it holds itself
        are where it is.

        Raises `ConfigError` where the folder holds no run with weights, or weights of another catalog.
        """
        files = RunDirectory.of(path)
        with usable("run", "the folder of a training run"):
            for file in (files.config, files.catalog, files.best_weights):
                if not file.is_file():
                    raise ConfigError(
                        f"run: expected the folder of a training run with its weights, got {path} without {file.name}"
                    )
        catalog, num_items = Catalog.read(files.catalog), read_config(files.best_weights).num_items
        if num_items != len(catalog):
            raise ConfigError(
                f"run: expected weights of the {len(catalog)} items of {files.catalog}, got weights of {num_items}"
            )
        config = _served(files)
        return cls(files, config if data is None else dataclasses.replace(config, data=data), catalog)

    def read_events(self) -> Interactions:
        """The run's data, or those given in their place, filtered as the run's were: the events of items that the model
        knows, numbered as its own (`in_catalog`). Raises `DataError` where there are none."""
        data = self.config.data
        if not is_there(data):
            raise ConfigError(f"data: expected the events of the run, got no file {data}; pass --data with their place")
        return in_catalog(read_events(self.config, self.files.catalog), self.catalog, source=str(self.files.path))

    def read_data(self) -> tuple[Interactions, Split]:
        """The same and how they are split; raises `DataError` where a part comes out empty."""
        interactions = self.read_events()
        return interactions, split_events(self.config, interactions)

    def require_part(self, part: str) -> None:
        """Raises `ConfigError` unless the run held events out for the ``part`` "valid" or "test"."""
        config = self.config
        if not {"valid": config.has_validation, "test": config.has_test}[part]:
            choice = "train_on_valid" if config.has_test else f"split = {config.split}"
            raise ConfigError(f"part: expected one that the run held out, got {part} of a run with {choice}")

    def trained_on(self, interactions: Interactions) -> tuple[Interactions, Split]:
        """The events that the run was trained on, and their split: of the run's own data, if they are where they were,
        else of ``interactions``, which were given in their place. Raises `DataError`."""
        own = _served(self.files)
        if own.data != self.config.data and is_there(own.data):
            interactions = in_catalog(read_events(own, self.files.catalog), self.catalog, source=str(self.files.path))
        return interactions, split_events(own, interactions)

    def train_part(self, interactions: Interactions) -> Ragged:
        """The items that each training user of `trained_on` has."""
        return self.trained_on(interactions)[1].train

    def tell_others(self, interactions: Interactions, split: Split) -> None:
        """Warns of other events than those that the run was trained on."""
        trained_on = self.files.fingerprint
        if trained_on.exists() and Fingerprint.read(trained_on) != Fingerprint.of(split):
            logger.warning("%s: other events than those that the run was trained on", interactions.source)

    def load(self, load: Load, device: str) -> ServedModel:
        """The run's weights as a model of a framework; raises `ConfigError` where they are no longer of its catalog."""
        num_items = read_config(self.files.best_weights).num_items
        if num_items != len(self.catalog):
            raise ConfigError(
                f"run: expected weights of {len(self.catalog)} items, as when it was opened, got weights of {num_items}"
            )
        return load(self.files.best_weights, device, self.config.precision)


def _served(files: RunDirectory) -> TrainConfig:
    """The options of a run whose items and titles are in its catalog: nothing served reads their files again. A log
    that it holds itself is where it is."""
    config = TrainConfig.read(files.config)
    data = str(files.events) if files.holds_log(config) else config.data
    return dataclasses.replace(config, titles=None, items=None, data=data)
