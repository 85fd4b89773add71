"""A tiny data set that can be learnt, the configuration of a run on it, and a finished run of each framework."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.serving.recommender import BaseRecommender

from tests.training.commands import FRAMEWORKS, config_of
from tests.training.days import write_days

USERS, ITEMS, LENGTH = 60, 40, 12


@pytest.fixture(scope="session")
def interactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who walk round the catalog in steps of 1, 2 or 3: the next item follows from the last two."""
    rng = np.random.default_rng(0)
    stride = 1 + np.arange(USERS)[:, None] % 3
    items = (rng.integers(0, ITEMS, USERS)[:, None] + np.arange(LENGTH) * stride) % ITEMS
    path = tmp_path_factory.mktemp("data") / "walks.parquet"
    columns = {
        "user_id": np.repeat(np.arange(USERS), LENGTH),
        "item_id": items.ravel(),
        "timestamp": np.tile(np.arange(LENGTH), USERS),
    }
    pq.write_table(pa.table(columns), path)
    return path


SMALL_DRAWS = {"num_negatives": 20, "group_size": 16}


def draws_negatives(changes: dict[str, Any], option: str) -> bool:
    """Whether a run with these options has any use for ``option``: others refuse it."""
    if changes.get("loss") == "sce" or changes.get("negatives") == "all":
        return False
    return option == "group_size" or changes.get("negatives") != "in-batch"


@pytest.fixture(scope="session")
def long_tailed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 users who walk round the catalog, most of them for a few items, every sixth for many."""
    rng = np.random.default_rng(0)
    lengths = [30 if user % 6 == 0 else int(rng.integers(4, 9)) for user in range(120)]
    users = np.repeat(np.arange(120), lengths)
    steps = np.concatenate([np.arange(length) for length in lengths])
    items = (rng.integers(0, ITEMS, 120)[users] + steps * (1 + users % 3)) % ITEMS
    path = tmp_path_factory.mktemp("data") / "long_tailed.parquet"
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": steps}), path)
    return path


@pytest.fixture
def make_config(interactions: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A small run on CPU; keyword arguments replace options, ``out`` is relative to the test's folder."""

    def make(out: str = "run", **changes: Any) -> TrainConfig:
        options: dict[str, Any] = {
            "data": str(interactions),
            "max_length": LENGTH,
            "dim": 16,
            "num_blocks": 1,
            "dropout": 0.1,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "warmup_steps": 5,
            "epochs": 3,
            "device": "cpu",
        }
        options |= {name: value for name, value in SMALL_DRAWS.items() if draws_negatives(changes, name)}
        return TrainConfig(**(options | changes), out=str(tmp_path / out))

    return make


@pytest.fixture(params=["torch", "jax"])
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def train(framework: str) -> Callable[[TrainConfig], Any]:
    return importlib.import_module(f"cce_minus.{framework}_impl.train").train


@pytest.fixture(scope="session")
def data(interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walks with items by name, ``i07`` for item 7, and titles for most of them."""
    folder = tmp_path_factory.mktemp("named")
    table = pq.read_table(interactions)
    names = [f"i{item:02}" for item in table["item_id"].to_pylist()]
    table = table.set_column(table.schema.get_field_index("item_id"), "item_id", pa.array(names))
    pq.write_table(table, folder / "events.parquet")
    labels = sorted(set(names))[1:]
    pq.write_table(
        pa.table({"item_id": labels, "title": [f"Title of {label}" for label in labels]}), folder / "titles.parquet"
    )
    return folder


@pytest.fixture(scope="session")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run of each framework, which names its data from their folder: tests serve it from elsewhere."""
    folder = tmp_path_factory.mktemp("runs")
    with contextlib.chdir(data):
        for name in FRAMEWORKS:
            importlib.import_module(f"cce_minus.{name}_impl.train").train(config_of(folder / name))
    return {name: folder / name for name in FRAMEWORKS}


@pytest.fixture(scope="session")
def days(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The logs of two days."""
    return write_days(tmp_path_factory.mktemp("days"))


@pytest.fixture
def make_day(make_config: Callable[..., TrainConfig], days: tuple[Path, Path]) -> Callable[..., TrainConfig]:
    """A run of an epoch on yesterday's log, or with ``from_run`` on today's."""

    def make(out: str, **options: Any) -> TrainConfig:
        data = days[0 if options.get("from_run") is None else 1]
        return make_config(out, **({"data": str(data), "epochs": 1} | options))

    return make


@pytest.fixture(scope="session")
def earlier(days: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each framework on yesterday's log, not to be written to."""
    folder = tmp_path_factory.mktemp("earlier")
    for name in FRAMEWORKS:
        config = TrainConfig(
            data=str(days[0]), max_length=12, dim=16, dropout=0.1, batch_size=16, learning_rate=1e-2, warmup_steps=5,
            num_negatives=20, group_size=16, epochs=2, device="cpu", out=str(folder / name),
        )  # fmt: skip
        importlib.import_module(f"cce_minus.{name}_impl.train").train(config)
    return {name: folder / name for name in FRAMEWORKS}


@pytest.fixture
def recommender(framework: str) -> type[BaseRecommender]:
    return importlib.import_module(f"cce_minus.{framework}_impl").Recommender


@pytest.fixture(scope="session")
def table(data: Path) -> pa.Table:
    return pq.read_table(data / "events.parquet")
