"""The CSVs of steps on catalogs, a row for each catalog and provider, and of whole runs, a row for each command; and
what is printed of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..runs.results import versions
from ..study.results import ResultsError, Row, replace_rows
from ..study.results import read as read_rows
from .cases import CATALOGS, PROVIDERS

COLUMNS = (
    "catalog", "items", "dim", "dtype", "rows", "inputs", "negatives", "provider", "ms", "mib",
    "gpu", "torch", "triton", "jax", "commit",
)  # fmt: skip

RUN_COLUMNS = (
    "items", "dim", "dtype", "item_optimizer", "framework", "part", "seconds", "host_gib", "gpu_gib", "disk_gib",
    "ndcg@10", "gpu", "torch", "triton", "jax", "commit",
)  # fmt: skip

__all__ = [
    "COLUMNS", "RUN_COLUMNS", "ResultsError", "Row", "add", "add_run", "markdown", "read", "read_runs", "run_markdown",
    "versions",
]  # fmt: skip


def read(path: Path) -> list[Row]:
    """The rows of ``path`` in the order of catalogs and providers; none where it does not exist yet."""
    return sorted(read_rows(path, COLUMNS), key=_place)


def _place(row: Row) -> tuple[int, int]:
    return list(CATALOGS).index(row["catalog"]), list(PROVIDERS).index(row["provider"])


def add(path: Path, row: dict[str, object]) -> None:
    """Adds a row, in place of that of the same catalog and provider."""
    replace_rows(path, [row], COLUMNS, key=("catalog", "provider"), place=_place)


def markdown(rows: Iterable[Row]) -> str:
    """A table with a row for each catalog and provider; the machines under it."""
    rows = list(rows)
    lines = ["| items | table | who | ms | MiB |", "|---|---|---|---:|---:|"]
    for row in rows:
        size = CATALOGS[row["catalog"]].bytes / 2**30
        table = f"{size:.1f} GiB, D={row['dim']}, {row['dtype']}"
        mib = f"{float(row['mib']):.0f}" if row["mib"] else ""
        lines.append(
            f"| {row['catalog'].partition('-')[0]} | {table} | {PROVIDERS[row['provider']]} | {float(row['ms']):.3f} | "
            f"{mib} |"
        )
    return "\n".join([*lines, "", *dict.fromkeys(map(_machine, rows))])


def read_runs(path: Path) -> list[Row]:
    """The rows of whole runs in ``path``; none where it does not exist yet."""
    return read_rows(path, RUN_COLUMNS)


def add_run(path: Path, row: dict[str, object]) -> None:
    """Adds a row of a whole run, in place of that of the same items, framework and part."""
    row = {name: row.get(name) for name in RUN_COLUMNS}
    keys = ("items", "framework", "part")
    replace_rows(path, [row], RUN_COLUMNS, key=keys, place=lambda row: (row["items"], row["framework"]))


def run_markdown(rows: Iterable[Row]) -> str:
    """A table with a row for each command of a whole run; the machines under it."""
    rows = list(rows)
    lines = [
        "| items | | command | seconds | host, GiB | GPU, GiB | disk, GiB | NDCG@10 |",
        "|---|---|---|" + "---:|" * 5,
    ]
    for row in rows:
        numbers = [f"{float(row[name]):.1f}" if row[name] else "" for name in ("seconds", *_SIZES)]
        quality = f"{float(row['ndcg@10']):.4f}" if row["ndcg@10"] else ""
        items = f"{int(row['items']):,}, D={row['dim']}, {row['dtype']}"
        lines.append(f"| {items} | {row['framework']} | {row['part']} | {' | '.join(numbers)} | {quality} |")
    return "\n".join([*lines, "", *dict.fromkeys(map(_machine, rows))])


_SIZES = ("host_gib", "gpu_gib", "disk_gib")


def _machine(row: Row) -> str:
    return f"{row['gpu']}, torch {row['torch']}, triton {row['triton']}, jax {row['jax']}, commit {row['commit']}"
