"""The CSV of results: one row for each shape, targets, provider and timing."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from .shapes import SHAPES, SWEEPS

Row = dict[str, str]

COLUMNS: tuple[str, ...] = (
    "shape", "rows", "negatives", "items", "dim", "targets", "provider", "timing",
    "ms", "ms_p10", "ms_p90", "rounds", "steps",
    "extra_bytes", "bytes_per_pair", "tflops", "matmul_fraction",
    "matmul_tflops", "copy_gb_s", "floor_operations_ms", "floor_bytes_ms", "gate_error",
    "gpu", "torch", "triton", "jax", "commit",
)  # fmt: skip

# in the order in which they tell most about the device: replays of a graph leave the host out
BEST = ("graph", "eager", "jit chained")


class ResultsError(Exception):
    """A file of results that cannot be read or added to."""


def read(path: Path) -> list[Row]:
    if not path.exists():
        raise ResultsError(f"{path} does not exist; measure first: python -m benchmarks.loss run")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ResultsError(f"{path} has other columns: it was written by another version of this benchmark")
        return list(reader)


def check_machine(path: Path, gpu: str) -> None:
    """Raises ResultsError where ``path`` holds results of another GPU: ratios between machines would mislead."""
    others = {row["gpu"] for row in read(path)} - {gpu} if path.exists() else set()
    if others:
        raise ResultsError(
            f"{path} holds results of {', '.join(sorted(others))}, not of {gpu}; name another file with --csv"
        )


def replace(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Add rows to ``path``, in place of all rows of the same shapes, targets and providers; in the order of shapes, as
    measured within one."""
    new = [{name: _text(row[name]) for name in COLUMNS} for row in rows]

    def what(row: Row) -> tuple[str, str, str]:
        return row["shape"], row["targets"], row["provider"]

    measured = {what(row) for row in new}
    kept = [row for row in read(path) if what(row) not in measured] if path.exists() else []
    order = list(SHAPES) + list(SWEEPS)

    def place(row: Row) -> tuple[int, int, str]:
        name, _, value = row["shape"].partition("/")
        return order.index(name) if name in order else len(order), int(value) if value.isdigit() else 0, row["targets"]

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(kept + new, key=place))
    partial.replace(path)


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def best_rows(rows: Iterable[Row]) -> dict[tuple[str, str, str], Row]:
    """(shape, targets, provider) -> the row whose time stands for the provider."""
    found: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        if row["timing"] in BEST:
            key = row["shape"], row["targets"], row["provider"]
            if key not in found or BEST.index(row["timing"]) < BEST.index(found[key]["timing"]):
                found[key] = row
    return found
