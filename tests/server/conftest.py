"""Small runs that are served."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import TrainConfig


@pytest.fixture(scope="session")
def film_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users who walk round 40 films, and the films' titles."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    items = (rng.integers(0, 40, 60)[:, None] + np.arange(12) * (1 + np.arange(60)[:, None] % 3)) % 40
    columns = {
        "user_id": np.repeat(np.arange(60), 12),
        "item_id": [f"f{item:02}" for item in items.ravel()],
        "timestamp": np.tile(np.arange(12), 60),
    }
    pq.write_table(pa.table(columns), folder / "events.parquet")
    titles = [f"Film <b>{item:02}</b> ({1960 + item})" for item in range(40)]
    pq.write_table(pa.table({"item_id": [f"f{item:02}" for item in range(40)], "title": titles}), folder / "t.parquet")
    return folder


def train_films(data: Path, out: Path, framework: str = "torch", seed: int = 0) -> Path:
    config = TrainConfig(
        data=str(data / "events.parquet"), titles=str(data / "t.parquet"), max_length=12, dim=16, negatives="all",
        batch_size=16, learning_rate=1e-2, warmup_steps=5, epochs=2, device="cpu", seed=seed, out=str(out),
    )  # fmt: skip
    importlib.import_module(f"cce_minus.{framework}_impl.train").train(config)
    return out


@pytest.fixture(scope="session")
def films(film_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_films(film_data, tmp_path_factory.mktemp("runs") / "monday")


@pytest.fixture(scope="session")
def other_films(film_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run on the same data, which recommends otherwise."""
    return train_films(film_data, tmp_path_factory.mktemp("runs") / "tuesday", seed=1)
