"""The CSV of scaling, a row for each framework, kind and number of GPUs; and what is printed of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..study.results import ResultsError, Row, replace_rows
from ..study.results import read as read_rows
from .cases import GOALS, KINDS, PROVIDERS, WEAK

KEY = ("framework", "kind", "gpus")
COLUMNS = (
    *KEY, "items_per_gpu", "positions_per_gpu", "dim", "negatives", "dtype", "table_dtype", "how",
    "ms", "ms_without_exchange", "exposed_ms", "exchange_bytes", "dense_bytes", "ddp_bytes", "peak_bytes",
    "table_bytes", "gpu", "torch", "triton", "jax", "commit",
)  # fmt: skip

__all__ = ["COLUMNS", "ResultsError", "Row", "add", "gain", "markdown", "read"]


def read(path: Path) -> list[Row]:
    """The rows of ``path`` by kind, framework and number of GPUs; none where it does not exist yet."""
    return sorted(read_rows(path, COLUMNS), key=_place)


def _place(row: Row) -> tuple[int, int, int]:
    return list(KINDS).index(row["kind"]), list(PROVIDERS).index(row["framework"]), int(row["gpus"])


def add(path: Path, row: dict[str, object]) -> None:
    """Adds a row, in place of that of the same framework, kind and number of GPUs."""
    replace_rows(path, [row], COLUMNS, key=KEY, place=_place)


def gain(row: Row, rows: list[Row]) -> float | None:
    """A step's time on one GPU over the row's: efficiency of weak scaling, speed-up of strong scaling. None where one
    GPU was not measured, or another card."""
    same = "framework", "kind", "gpu"
    one = [each for each in rows if each["gpus"] == "1" and all(each[name] == row[name] for name in same)]
    return float(one[0]["ms"]) / float(row["ms"]) if one else None


def markdown(rows: Iterable[Row]) -> str:
    """A table of each kind that there is; the machines under them."""
    rows = list(rows)
    parts: list[str] = []
    for kind, what in KINDS.items():
        own = [row for row in rows if row["kind"] == kind]
        if own:
            parts.append("\n".join([f"{kind.capitalize()} scaling: {what}.", "", *_table(kind, own)]))
    return "\n\n".join([*parts, "\n".join(dict.fromkeys(map(_machine, rows)))])


def _table(kind: str, rows: list[Row]) -> list[str]:
    name = "efficiency" if kind == WEAK else "speed-up"
    lines = [
        f"| who | GPUs | items a GPU | ms | {name} (goal) | exposed, ms | exchanged, MiB | dense, MiB | DDP, MiB | "
        "table, MiB | above it, MiB | step |",
        "|---|" + "---:|" * 10 + "---|",
    ]
    for row in rows:
        reached, goal = gain(row, rows), GOALS.get((kind, int(row["gpus"])))
        text = ("" if reached is None else f"{reached:.2f}") + ("" if goal is None else f" ({goal})")
        above = f"{(float(row['peak_bytes']) - float(row['table_bytes'])) / 2**20:.0f}" if row["peak_bytes"] else ""
        sent = " | ".join(_mib(row[name]) for name in ("exchange_bytes", "dense_bytes", "ddp_bytes", "table_bytes"))
        lines.append(
            f"| {PROVIDERS[row['framework']]} | {row['gpus']} | {int(row['items_per_gpu']):,} | {float(row['ms']):.3f} "
            f"| {text.strip()} | {float(row['exposed_ms']):.3f} | {sent} | {above} | {row['how']} |"
        )
    return lines


def _mib(text: str) -> str:
    return f"{float(text) / 2**20:.1f}"


def _machine(row: Row) -> str:
    versions = ", ".join(f"{name} {row[name]}" for name in ("torch", "triton", "jax") if row[name])
    return f"{row['gpu']}, {versions}, commit {row['commit']}"
