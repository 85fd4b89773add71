"""A shop's log as shops have them, with a structure that is known: who buys a product buys its successor next, nine
times in ten."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

SERIES, LENGTH = 30, 4
"""Products come in series; the successor of a series' last product is its first."""

FOLLOWS = 0.9
OPTIMUM = FOLLOWS
"""NDCG@10 of who knows the successor and nothing of the others: rank 1 nine times in ten."""

ZONES = [timezone(timedelta(hours=hours)) for hours in (0, 2, -5)]
START = datetime(2024, 3, 1, tzinfo=ZONES[0])


def sku(product: int) -> str:
    return f"{product:05d}"


@dataclass
class Shop:
    """Writes ``events.csv`` and ``products.csv`` into a folder, a day after the other."""

    folder: Path
    rng: np.random.Generator
    products: int = SERIES * LENGTH

    def open(self) -> None:
        self.histories = {f"c{user:03d}": self._walk(None, int(self.rng.integers(9, 14))) for user in range(300)}
        self._write()

    def next_day(self) -> None:
        """Half of the customers come again, forty are new, and so are two series."""
        self.products += 2 * LENGTH
        for user, history in list(self.histories.items())[::2]:
            self.histories[user] = history + self._walk(history[-1], 3)
        self.histories |= {f"n{user:03d}": self._walk(None, 8) for user in range(40)}
        for user in range(30):  # of the new series
            self.histories[f"m{user:03d}"] = self._walk(self.products - 1 - user % (2 * LENGTH), 8)
        self._write()

    def _walk(self, last: int | None, length: int) -> list[int]:
        walk = []
        for _ in range(length):
            follows = last is not None and self.rng.random() < FOLLOWS
            last = _successor(last) if follows and last is not None else int(self.rng.integers(self.products))
            walk.append(last)
        return walk

    def _write(self) -> None:
        rows = []
        for user, history in self.histories.items():
            time = START + timedelta(minutes=int(self.rng.integers(10_000)))
            for product in history:
                time += timedelta(minutes=int(self.rng.integers(1, 500)))
                zone = ZONES[int(self.rng.integers(len(ZONES)))]
                rows.append([user, sku(product), time.astimezone(zone).isoformat()])
        repeated = [rows[place] for place in self.rng.integers(len(rows), size=len(rows) // 30)]
        broken = [["", rows[0][1], rows[0][2]], [rows[1][0], "", rows[1][2]], [rows[2][0], rows[2][1], ""]]
        rows += repeated + broken
        order = self.rng.permutation(len(rows))
        self._table("events.csv", ["customer", "sku", "bought_at"], [rows[place] for place in order])
        products = [
            [sku(product), f"Series {product // LENGTH}, part {product % LENGTH + 1}", f"series {product // LENGTH}",
             "" if product == 7 else f"{5 + 3 * (product % LENGTH) + product / 1000:.2f}"]
            for product in range(self.products)
        ]  # fmt: skip
        self._table("products.csv", ["sku", "title", "category", "price"], products)

    def _table(self, name: str, header: list[str], rows: list[list[str]]) -> None:
        with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])


def _successor(product: int) -> int:
    return product // LENGTH * LENGTH + (product + 1) % LENGTH


def successor(label: str) -> str:
    return sku(_successor(int(label)))
