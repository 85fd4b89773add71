"""The CSV of the study: one row for each run; a row is what a cell from a seed reached, and what its steps cost."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cce_minus.recsys import TrainConfig

Row = dict[str, str]

COLUMNS: tuple[str, ...] = (
    "dataset", "method", "framework", "seed", "digest",
    "loss", "negatives", "num_negatives", "group_size", "shuffle_rows", "logq_correction", "one_draw",
    "dim", "batch_size", "max_length", "learning_rate", "dropout", "precision", "train_on_valid",
    "epochs", "best_epoch", "steps_per_epoch", "train_loss",
    "valid_ndcg@10", "valid_hr@10", "test_ndcg@10", "test_hr@10", "test_coverage@10", "test_surprisal@10",
    "valid_curve",
    "train_seconds", "rows", "loss_ms", "loss_mib", "step_ms", "step_mib", "times_commit",
    "gpu", "torch", "triton", "commit",
)  # fmt: skip

TIMES = ("loss_ms", "loss_mib", "step_ms", "step_mib", "times_commit")


class ResultsError(Exception):
    """A file of results that cannot be read or added to."""


def read(path: Path, columns: tuple[str, ...] = COLUMNS) -> list[Row]:
    """The rows of ``path``; none where it does not exist yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != columns:
            raise ResultsError(f"{path} has other columns: it was written by another version of the study")
        return list(reader)


def replace_rows(
    path: Path, new: Iterable[dict[str, object]], columns: tuple[str, ...], key: Sequence[str],
    place: Callable[[Row], Any] | None = None,
) -> None:  # fmt: skip
    """Adds rows, in place of those that are equal in ``key``; at once, so that a killed process leaves a whole file.
    ``place``: what they are sorted by; else data set, method and seed."""

    def what(row: Row) -> tuple[str, ...]:
        return tuple(row[name] for name in key)

    rows = {what(row): row for row in read(path, columns)}
    for values in new:
        row = {name: _text(values.get(name)) for name in columns}
        rows[what(row)] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows.values(), key=place or _place))
    partial.replace(path)


def add(path: Path, new: Iterable[dict[str, object]]) -> None:
    """Adds rows, in place of those of the same cell, framework and seed; rows that come without times take those of
    their cell."""
    known = {row["digest"]: {name: row[name] for name in TIMES} for row in read(path) if row["loss_ms"]}
    filled = [row if row.get("loss_ms") else {**row, **known.get(str(row["digest"]), {})} for row in new]
    replace_rows(path, filled, COLUMNS, key=("digest", "framework", "seed"))


def add_times(path: Path, digest: str, times: dict[str, object]) -> None:
    """Writes what a cell's steps cost into all its rows."""
    cost = {name: _text(times[name]) for name in TIMES}
    add(path, [{**row, **cost} for row in read(path) if row["digest"] == digest])


def describe(config: TrainConfig) -> dict[str, object]:
    """The columns that ``config`` tells; empty where its loss does not use an option."""
    drawn = config.loss != "sce" and config.negatives != "all"
    grouped = drawn and config.group_size != 1
    return {
        "dataset": Path(config.data).stem,
        "seed": config.seed,
        "loss": config.loss,
        "negatives": "" if config.loss == "sce" else config.negatives,
        "num_negatives": config.num_negatives if drawn else "",
        "group_size": config.group_size if drawn else "",
        "shuffle_rows": config.shuffle_rows if grouped else "",
        "logq_correction": config.logq_correction if drawn and config.loss == "softmax" else "",
        **{
            name: getattr(config, name)
            for name in ("dim", "batch_size", "max_length", "learning_rate", "dropout", "precision", "train_on_valid")
        },
    }


def _place(row: Row) -> tuple[str, str, str, int]:
    return row["dataset"], row["method"], row["framework"], int(row.get("seed", 0))


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
