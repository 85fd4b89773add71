"""A log of events as large as wanted, the same at every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, EVENTS, ITEMS = 100_000, 50, 1_000_000


def write_log(path: Path, *, users: int = USERS, events: int = EVENTS, items: int = ITEMS) -> None:
    """Writes ``users * events`` events, at least ``items`` of them, to the Parquet ``path``.

    Every item occurs, so that the catalog has exactly as many; an eighth of the items takes half of the other events.
    """
    rng = np.random.default_rng(0)
    drawn = (items * rng.random(users * events - items) ** 3).astype(np.int32)
    item_id = rng.permutation(np.concatenate([np.arange(items, dtype=np.int32), drawn]))
    table = {
        "user_id": np.repeat(np.arange(users, dtype=np.int32), events),
        "item_id": item_id,
        "timestamp": np.tile(np.arange(events, dtype=np.int64), users),
    }
    pq.write_table(pa.table(table), path)
