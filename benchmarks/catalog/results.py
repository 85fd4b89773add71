"""The CSV of steps on catalogs, a row for each catalog and provider, and what is printed and drawn of it."""

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

__all__ = ["COLUMNS", "ResultsError", "Row", "add", "markdown", "read", "versions"]


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
    machines = dict.fromkeys(
        f"{row['gpu']}, torch {row['torch']}, triton {row['triton']}, jax {row['jax']}, commit {row['commit']}"
        for row in rows
    )
    return "\n".join([*lines, "", *machines])
