"""Small logs whose items tie in whatever they are counted by."""

from __future__ import annotations

from typing import Any

import numpy as np
from cce_minus.recsys import Interactions

ITEMS = 14
DAY = 86_400
START = 1_700_000_000
Rows = list[list[int]]


def log_of(rows: Rows, times: list[list[int]] | None = None, **fields: Any) -> Interactions:
    lengths = [len(row) for row in rows]
    times = times or [[START + place for place in range(length)] for length in lengths]
    return Interactions(
        np.repeat(np.arange(len(rows), dtype=np.int32), lengths),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(times).astype(np.int64),
        np.arange(len(rows)),
        np.arange(fields.pop("num_items", ITEMS)),
        **fields,
    )


def random_rows(seed: int, users: int = 30, longest: int = 9) -> Rows:
    """With ties in every count, items that come again, and items 12 and 13 nowhere."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, ITEMS - 2, rng.integers(0, longest)).tolist() for _ in range(users)]


def questions(seed: int) -> tuple[Rows, np.ndarray]:
    """Histories, some empty and some of items without training events, and targets of all kinds."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, ITEMS, rng.integers(0, 7)).tolist() for _ in range(40)]
    rows[:4] = [[], [12], [13, 12], [3, 3, 13]]
    return rows, rng.integers(0, ITEMS, len(rows))
