"""The CSV of warm starts: one row for each run of a chain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..study.results import ResultsError, Row, replace_rows
from ..study.results import read as read_rows
from .cells import KINDS, LOGS, WARM, Chain

CHAIN = ("dataset", "day", "days", "framework", "seed")

COLUMNS = (
    *CHAIN, "kind", "digest",
    "events", "users", "items",
    "steps_per_epoch", "epochs", "steps", "best_epoch", "steps_to_best",
    "valid_ndcg@10", "valid_hr@10",
    "test_users", "test_ndcg@10", "test_hr@10",
    "active_users", "active_ndcg@10", "active_hr@10",
    "valid_curve", "seconds",
    "gpu", "cores", "python", "torch", "triton", "jax", "commit",
)  # fmt: skip

Key = tuple[str, ...]
Runs = dict[str, Row]
"""The rows of a chain by kind."""


def read(path: Path) -> list[Row]:
    """The rows of ``path``; none where it does not exist yet. Raises ``ResultsError`` for another version's."""
    return read_rows(path, COLUMNS)


def add(path: Path, chain: Chain, rows: Iterable[dict[str, object]], versions: dict[str, object]) -> None:
    """Adds the rows of a ``chain``, in place of older ones."""
    labels = {**dict(zip(CHAIN, chain.key, strict=True)), "digest": chain.cell.digest}
    new = [{**labels, **row, **versions} for row in rows]
    replace_rows(path, new, COLUMNS, key=(*CHAIN, "kind"), place=_place)


def missing(chains: Iterable[Chain], path: Path) -> list[Chain]:
    """Those of ``chains`` that have not all their rows, with the options of now."""
    present = {(key, runs[WARM]["digest"]) for key, runs in by_chain(read(path)).items()}
    return [chain for chain in chains if (chain.key, chain.cell.digest) not in present]


def by_chain(rows: Iterable[Row]) -> dict[Key, Runs]:
    """The runs of each chain, in the order of the file. Raises ``ResultsError`` for one that lacks a run."""
    chains: dict[Key, Runs] = {}
    for row in rows:
        chains.setdefault(tuple(row[name] for name in CHAIN), {})[row["kind"]] = row
    for key, runs in chains.items():
        if set(runs) != set(KINDS):
            raise ResultsError(f"{', '.join(key)}: expected rows of {', '.join(KINDS)}, got {', '.join(runs)}")
    return chains


def _place(row: Row) -> tuple[object, ...]:
    names = list(LOGS)
    dataset = names.index(row["dataset"]) if row["dataset"] in names else len(names)
    day = int(row["days"]), row["day"]
    return dataset, row["dataset"], row["framework"] != "torch", day, int(row["seed"]), KINDS.index(row["kind"])
