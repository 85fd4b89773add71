"""A small data set for the study's tests, whose next items can be learnt, and a model for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.study.cells import Dataset

CPU = torch.device("cpu")
USERS, ITEMS, LENGTH = 60, 300, 10

SMALL = Dataset(
    "walks",
    3,
    {
        "dim": 16,
        "num_blocks": 1,
        "num_heads": 2,
        "max_length": 8,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "dropout": 0.1,
    }
    | {"warmup_steps": 5},
)


def write_walks(folder: Path) -> Path:
    """Users who walk round the first 40 items in steps of their own; the others are drawn once each and make room for
    negatives."""
    rng = np.random.default_rng(0)
    items = (rng.integers(0, 40, USERS)[:, None] + np.arange(LENGTH) * (1 + np.arange(USERS)[:, None] % 3)) % 40
    items = np.concatenate([np.arange(ITEMS).reshape(USERS, -1), items], axis=1)
    length = items.shape[1]
    table = {
        "user_id": np.repeat(np.arange(USERS), length),
        "item_id": items.ravel(),
        "timestamp": np.tile(np.arange(length), USERS),
    }
    pq.write_table(pa.table(table), folder / "walks.parquet")
    return folder
