"""A log of two days, whose items change from one to the next, and what a run has before its first step."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.run.checkpoint_file import write_checkpoint
from cce_minus.recsys.run.progress import Progress
from cce_minus.recsys.run.run_directory import RunDirectory
from safetensors.numpy import load_file

Arrays = dict[str, np.ndarray]

ROWS: dict[str, Any] = {"num_negatives": 8, "group_size": 128}  # 2 groups of a batch: 16 draws of 39 items

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "clipped": {"optimizer": "adamax", "clip_norm": 1.0},
    "sgd": {"optimizer": "sgd"},
    "rowwise-adagrad": {"item_optimizer": "rowwise-adagrad", "table_dtype": "bf16", **ROWS},
    "partial-rowwise-adam": {"item_optimizer": "partial-rowwise-adam", **ROWS},
    "lazy-adam": {"item_optimizer": "lazy-adam", **ROWS},
}

USERS, LENGTH, GONE, KNOWN, NEW = 48, 12, 6, 34, 5


def write_days(folder: Path) -> tuple[Path, Path]:
    """Walks among items 0..39 as integers, and the next day among 6..44 as texts, which are in another order."""
    days = folder / "yesterday.parquet", folder / "today.parquet"
    rng = np.random.default_rng(0)
    for path, first, count in zip(days, (0, GONE), (GONE + KNOWN, KNOWN + NEW), strict=True):
        stride = 1 + np.arange(USERS)[:, None] % 3
        items = first + (rng.integers(0, count, USERS)[:, None] + np.arange(LENGTH) * stride) % count
        columns: dict[str, Any] = {
            "user_id": np.repeat(np.arange(USERS), LENGTH),
            "item_id": items.ravel() if first == 0 else [str(item) for item in items.ravel()],
            "timestamp": np.tile(np.arange(LENGTH), USERS),
        }
        pq.write_table(pa.table(columns), path)
    return days


class StartedError(Exception):
    """A run has come to its first step."""


def start_of(framework: str, config: TrainConfig) -> tuple[Arrays, Arrays]:
    """The weights, by their names in a file, and the checkpoint's tensors that a run begins with; it leaves no
    folder."""
    found: list[Arrays] = []

    def stop(training: Any, *_: object) -> None:
        snapshot = training.snapshot()
        path = Path(config.out).with_suffix(".start")
        snapshot.write_weights(path)
        found.extend((load_weights(path), {name: tensor.array() for name, tensor in snapshot.tensors().items()}))
        raise StartedError

    module = importlib.import_module(f"cce_minus.{framework}_impl.train")
    with mock.patch.object(module, "run_epochs", stop):
        try:
            module.train(config)
        except StartedError:
            return found[0], found[1]
    raise AssertionError("no run has begun")


def untrained_run(framework: str, config: TrainConfig) -> Arrays:
    """Writes a finished run with the weights that it would begin with and a state of numbers at random; returns this by
    the checkpoint's names."""
    rng, run, made = np.random.default_rng(0), RunDirectory.of(config.out, framework), {}

    def skip(training: Any, *_: object) -> dict[str, float]:
        snapshot = training.snapshot()
        snapshot.write_weights(run.best_weights)
        for name, tensor in snapshot.tensors().items():
            made[name] = (1 + 9 * rng.random(tensor.shape)).astype(tensor.numpy_dtype)
        write_checkpoint(run, made, Progress([0.0], best_epoch=0))
        return {}

    module = importlib.import_module(f"cce_minus.{framework}_impl.train")
    with mock.patch.object(module, "run_epochs", skip):
        module.train(config)
    return made


def load_weights(path: Path) -> Arrays:
    """A weights file in float32."""
    import torch
    from safetensors.torch import load_file as load_torch

    if any(tensor.dtype == torch.bfloat16 for tensor in load_torch(path).values()):
        return {name: tensor.float().numpy() for name, tensor in load_torch(path).items()}
    return load_file(path)


def labels_of(run: Path | str) -> list[str]:
    return [str(label) for label in pq.read_table(Path(run) / "catalog.parquet")["item"].to_pylist()]


def todays_labels(days: tuple[Path, Path]) -> list[str]:
    return sorted(set(pq.read_table(days[1])["item_id"].to_pylist()))


def new_rows(before: np.ndarray, run: Path, log: Path, vectors: Collection[str] = ()) -> Arrays:
    """What each item of the ``log`` that the ``run`` did not have starts as, but for those with ``vectors``: by loops
    over what leave-one-out trains on."""
    places, table = {label: place for place, label in enumerate(labels_of(run))}, pq.read_table(log)
    items = np.array(table["item_id"].to_pylist()).reshape(USERS, LENGTH)
    pairs: dict[str, list[tuple[float, np.ndarray]]] = {label: [] for label in items.ravel() if label not in places}
    for history in items[:, :-2]:
        for place, label in enumerate(history):
            if label in places:
                continue
            for side in (history[:place][::-1], history[place + 1 :]):
                known = [before[places[other]] for other in side if other in places]
                pairs[label] += [(1 / distance, row) for distance, row in enumerate(known[:3], start=1)]
    found = {}
    for label, weighted in pairs.items():
        if label in vectors:
            continue
        mean = before.mean(axis=0, dtype=np.float64)
        weights = np.array([1.0, *(weight for weight, _ in weighted)])
        rows = np.stack([mean, *(row for _, row in weighted)])
        direction, length = weights @ rows, weights @ np.linalg.norm(rows, axis=1) / weights.sum()
        found[label] = (length * direction / np.linalg.norm(direction)).astype(np.float32)
    return found


def assert_mapped(got: np.ndarray, before: np.ndarray, run: Path, today: list[str], new: Arrays | np.ndarray) -> None:
    """Each of today's rows is that of its label in the ``run`` before, or that of ``new``."""
    places = {label: place for place, label in enumerate(labels_of(run))}
    for label, row in zip(today, got, strict=True):
        if label in places:
            np.testing.assert_array_equal(row, before[places[label]])
        else:
            expected = new[label] if isinstance(new, dict) else new
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-7, err_msg=label)
