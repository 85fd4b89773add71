"""What the serving commands do with a finished run, in terms of a framework's model."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
from ..run.experiment import held_out, read_events, split_events
from ..run.fingerprint import Fingerprint
from ..run.run_directory import RunDirectory
from ..run.tensor_file import Stored, write_tensor_file
from ..run.weights_file import read_config
from .candidates import Ids

logger = logging.getLogger(__name__)


class ServedModel(Protocol):
    """A trained model of either framework, in evaluation mode on its device."""

    def evaluate(
        self, histories: Ragged, targets: npt.NDArray[np.int32], split: Split, *, config: TrainConfig
    ) -> dict[str, float]: ...

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
        if data is None and files.events.exists():
            data = str(files.events)
        # Titles are in the catalog: nothing served reads their file again.
        changes = {"titles": None} | ({} if data is None else {"data": data})
        return cls(files, dataclasses.replace(TrainConfig.read(files.config), **changes), catalog)

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

    def train_part(self, interactions: Interactions) -> Ragged:
        """The items that each training user has: of the run's own data, if they are where they were, else of
        ``interactions``, which were given in their place. Raises `DataError`."""
        own = dataclasses.replace(TrainConfig.read(self.files.config), titles=None)
        if own.data != self.config.data and is_there(own.data):
            interactions = in_catalog(read_events(own, self.files.catalog), self.catalog, source=str(self.files.path))
        return split_events(own, interactions).train

    def load(self, load: Load, device: str) -> ServedModel:
        """The run's weights as a model of a framework."""
        return load(self.files.best_weights, device, self.config.precision)


def evaluate_run(run: ServedRun, load: Load, config: TrainConfig, part: str) -> dict[str, float]:
    """Metrics of the run's weights on the data's ``test`` or ``valid`` part, by the options of ``config``."""
    run.require_part(part)
    interactions, split = run.read_data()
    trained_on = run.files.fingerprint
    if trained_on.exists() and Fingerprint.read(trained_on) != Fingerprint.of(split):
        logger.warning("%s: other events than those that the run was trained on", interactions.source)
    model = run.load(load, config.device)
    return model.evaluate(*held_out(config, split, part), split, config=config)


def export_run(run: ServedRun, load: Load, to: Path, *, device: str, index: bool | None = None) -> list[Path]:
    """Writes what an own server needs into the folder ``to`` and returns the files.

    ``items.safetensors`` holds ``vectors`` (V, D), float32, or bfloat16 where they are the rows of such a table and
    nothing else, ``encoder.safetensors`` the model's weights and configuration, ``catalog.parquet`` labels and titles
    by row, ``index.faiss`` an exact inner-product index of the vectors in float32: the score of item j is ``hidden .
    vectors[j]`` with the encoder's hidden state of a history. The index alone takes the vectors into memory: by default
    there is one up to `MOST_INDEXED` bytes.
    """
    if to.exists() and (not to.is_dir() or to.resolve() == run.files.path.resolve()):
        raise ConfigError(f"to: expected a folder of its own for the files, got {to}")
    if index:
        _faiss()
    vectors = run.load(load, device).item_vectors()
    size = 4 * math.prod(vectors.shape)
    if index is None and size > MOST_INDEXED:
        logger.info("no index.faiss, which would take %.1f GiB of memory; --index makes it", size / 2**30)
    files = [to / name for name in ("items.safetensors", "encoder.safetensors", "catalog.parquet", "index.faiss")]
    made = _index_of(vectors) if index or (index is None and size <= MOST_INDEXED) else None
    with usable("to", "a folder that can be written"):
        to.mkdir(parents=True, exist_ok=True)
        files[3].unlink(missing_ok=True)  # of other vectors
        write_tensor_file(files[0], {"vectors": vectors}, {})
        shutil.copyfile(run.files.best_weights, files[1])
        shutil.copyfile(run.files.catalog, files[2])
    if made is None:
        return files[:3]
    # FAISS raises no OSError for a file that cannot be written.
    with usable("to", "a folder that can be written", RuntimeError):
        _faiss().write_index(made, str(files[3]))
    return files


MOST_INDEXED = 2**32
"""Bytes of vectors in float32 that an export makes an index of without being asked."""


def _faiss() -> Any:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "export: an index needs the package faiss-cpu, which cce-minus[export] installs; --no-index does without"
        ) from error
    return faiss


def _index_of(vectors: Stored) -> Any:
    index = _faiss().IndexFlatIP(vectors.shape[1])
    for piece in vectors.pieces():
        index.add((piece.astype(np.uint32) << 16).view(np.float32) if vectors.dtype == "bfloat16" else piece)
    return index
