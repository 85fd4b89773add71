"""A log with a planted structure among a catalog of any size, the same at every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, EVENTS = 200_000, 50
TOPICS, TOPIC = 6_250, 32
STAYS = 0.9
"""The probability that a user's next item is of the topic that the last one is of."""


def write_planted(folder: Path, items: int, *, users: int = USERS, topics: int = TOPICS) -> dict[str, str]:
    """Writes ``events.parquet`` and ``items.parquet`` of ``items`` ids to ``folder``; their paths by option.

    ``topics`` of `TOPIC` items, spread over the catalog at random, have events; users go from item to item of a topic,
    now and then to another topic. Who knows the topic of a user's last item finds the next one among `TOPIC`, who knows
    nothing among all; the other items have no events.
    """
    rng = np.random.default_rng(0)
    of_topic = rng.permutation(rng.choice(items, topics * TOPIC, replace=False)).reshape(topics, TOPIC)
    moves = rng.random((users, EVENTS)) >= STAYS
    moves[:, 0] = True
    places = np.maximum.accumulate(np.where(moves, np.arange(EVENTS), 0), axis=1)
    topic = np.take_along_axis(rng.integers(topics, size=(users, EVENTS)), places, axis=1)
    item = of_topic[topic, rng.integers(TOPIC, size=(users, EVENTS))]
    events = {
        "user_id": np.repeat(np.arange(users, dtype=np.int32), EVENTS),
        "item_id": item.reshape(-1),
        "timestamp": np.tile(np.arange(EVENTS, dtype=np.int64), users),
    }
    paths = {"data": str(folder / "events.parquet"), "items": str(folder / "items.parquet")}
    pq.write_table(pa.table(events), paths["data"])
    with pq.ParquetWriter(paths["items"], pa.schema({"item_id": pa.int64()}), use_dictionary=False) as writer:
        for first in range(0, items, 2**24):
            writer.write_table(pa.table({"item_id": np.arange(first, min(first + 2**24, items))}))
    return paths
