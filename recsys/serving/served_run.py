"""What the serving commands do with a finished run, in terms of a framework's model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from ..data.catalog import Catalog
from ..data.ragged import Ragged
from ..errors import ConfigError
from ..protocol.splits import Split
from ..run.config import TrainConfig
from ..run.experiment import prepare_data
from ..run.run_directory import RunDirectory
from ..run.weights_file import read_config
from .requests import Requests, read_requests, user_requests


class ServedModel(Protocol):
    """A trained model of either framework, in evaluation mode on its device."""

    def evaluate(
        self, histories: Ragged, targets: npt.NDArray[np.int32], split: Split, *, config: TrainConfig
    ) -> dict[str, float]: ...

    def recommend(self, histories: Ragged, k: int, *, filter_seen: bool) -> npt.NDArray[np.int64]: ...

    def item_vectors(self) -> npt.NDArray[np.float32]: ...


LAST_SEEN = 3
"""Items of a history that a recommendation is shown with."""

Load = Callable[[Path, str], ServedModel]
"""``load(weights file, device)``: a model of the configuration in the file's metadata."""


@dataclass(frozen=True)
class ServedRun:
    """A run that has finished at least one validation, whichever framework trained it."""

    files: RunDirectory
    config: TrainConfig
    catalog: Catalog

    @classmethod
    def open(cls, path: str | Path) -> ServedRun:
        """Raises `ConfigError` where the folder holds no run with weights, or weights of another catalog."""
        files = RunDirectory(Path(path).absolute(), "any")
        for file in (files.config, files.catalog, files.best_weights):
            if not file.is_file():
                raise ConfigError(
                    f"run: expected the folder of a training run with its weights, got {path} without {file.name}"
                )
        catalog, num_items = Catalog.read(files.catalog), read_config(files.best_weights).num_items
        if num_items != len(catalog):
            raise ConfigError(
                f"run: expected weights of the {len(catalog)} items of {files.catalog}, got weights of {num_items} "
                f"items"
            )
        return cls(files, TrainConfig.from_json(files.config.read_text()), catalog)


def evaluate_run(run: ServedRun, load: Load, config: TrainConfig, part: str) -> dict[str, float]:
    """Metrics of the run's weights on the data's ``test`` or ``valid`` part, by the options of ``config``."""
    interactions, split = prepare_data(config)
    run.catalog.require_same(interactions, source=str(run.files.path))
    model = load(run.files.best_weights, config.device)
    parts = {"test": (split.test_history, split.test_target), "valid": (split.valid_history, split.valid_target)}
    return model.evaluate(*parts[part], split, config=config)


@dataclass(frozen=True)
class Recommendation:
    """The best items of one user, best first: their original ids and what to call them."""

    user: Any
    items: list[Any]
    names: list[str]
    last_seen: list[str]


def recommend_run(
    run: ServedRun,
    load: Load,
    *,
    users: list[str],
    sequences: Path | None,
    k: int,
    filter_seen: bool,
    skip_unknown: bool,
    device: str,
) -> list[Recommendation]:
    """The top k items for users of the run's data, or for the sequences of a file."""
    requests = _requests(run, users, sequences, skip_unknown)
    model = load(run.files.best_weights, device)
    top = model.recommend(requests.histories, k, filter_seen=filter_seen)
    catalog = run.catalog
    return [
        Recommendation(user, catalog.labels[items].tolist(), catalog.names(items), catalog.names(history[-LAST_SEEN:]))
        for user, items, history in zip(requests.users, top, requests.histories, strict=True)
    ]


def _requests(run: ServedRun, users: list[str], sequences: Path | None, skip_unknown: bool) -> Requests:
    if bool(users) == (sequences is not None):
        raise ConfigError(f"user: expected users or a file of sequences, got {'both' if users else 'neither'}")
    if sequences is not None:
        return read_requests(sequences, run.catalog, skip_unknown=skip_unknown)
    if skip_unknown:
        raise ConfigError("skip_unknown: only for sequences, got users")
    interactions, _ = prepare_data(run.config)
    run.catalog.require_same(interactions, source=str(run.files.path))
    return user_requests(interactions, users)


def write_recommendations(rows: list[Recommendation], path: Path) -> None:
    """Writes ``user_id``, ``items`` and ``names``, a row a user, to a file that ends in .json or .parquet."""
    table = {
        "user_id": [row.user for row in rows],
        "items": [row.items for row in rows],
        "names": [row.names for row in rows],
    }
    if path.suffix.lower() == ".json":
        records = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
        path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    elif path.suffix.lower() == ".parquet":
        pq.write_table(pa.table(table), path)
    else:
        raise ConfigError(f"output: expected a file name that ends in .json or .parquet, got {path.name!r}")


def export_run(run: ServedRun, load: Load, to: Path, *, device: str) -> list[Path]:
    """Writes what an own server needs into the folder ``to`` and returns the files.

    ``items.safetensors`` holds ``vectors`` (V, D) float32, ``encoder.safetensors`` the model's weights and
    configuration, ``catalog.parquet`` labels and titles by row, ``index.faiss`` an exact inner-product index of the
    vectors: the score of item j is ``hidden . vectors[j]`` with the encoder's hidden state of a history.
    """
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("export: needs the package faiss-cpu, which cce-minus[export] installs") from error
    vectors = load(run.files.best_weights, device).item_vectors()
    to.mkdir(parents=True, exist_ok=True)
    files = [to / name for name in ("items.safetensors", "encoder.safetensors", "catalog.parquet", "index.faiss")]
    save_file({"vectors": vectors}, files[0])
    shutil.copyfile(run.files.best_weights, files[1])
    shutil.copyfile(run.files.catalog, files[2])
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)  # pyright: ignore[reportCallIssue]
    faiss.write_index(index, str(files[3]))
    return files
