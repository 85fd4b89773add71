"""Markdown tables of the study's results."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable

from .cells import BEST_TABLE_RATES, FULL, GROUPED, METHODS, WHOLE_TABLE, of_rows
from .intervals import Interval, interval, paired_ratio, relative_difference
from .results import ResultsError, Row

_HEAD = (
    "method", "seeds", "NDCG@10", "HR@10", "of CE's NDCG@10", "coverage@10", "epochs to the best",
    "loss, ms a step", "whole step, ms", "loss, seconds to the best epoch", "all, seconds to the best epoch",
    "loss, MiB", "minutes a run, side by side",
)  # fmt: skip


def markdown(rows: Iterable[Row]) -> str:
    """A table for each data set, a line for each method; means over seeds with half-widths of 95% intervals."""
    groups = by_cell(sorted(rows, key=_place))
    parts: list[str] = []
    for dataset in sorted({name for name, _, _ in groups}):
        lines = [f"### {dataset}", "", f"| {' | '.join(_HEAD)} |", "|---|" + "---:|" * (len(_HEAD) - 1)]
        full = groups.get((dataset, FULL.name, "torch"), [])
        for (name, method, framework), cell in groups.items():
            if name == dataset:
                lines.append(_line(method if framework == "torch" else f"{method} (JAX)", cell, full))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


_PAIRED = 0.9
_TABLE_HEAD = (
    "data set",
    "item table by",
    "rate",
    "seeds",
    "NDCG@10",
    "of AdamW's",
    "lower bound, 90%",
    "epochs to the best",
)


def item_tables(rows: Iterable[Row]) -> str:
    """What moving the rows of the item table alone costs: a line for each optimizer at its best rate, with its share of
    AdamW's NDCG@10 from the same seeds and the lower bound of the share's 90% interval; empty without such rows."""
    groups = by_cell(rows)
    lines = [f"| {' | '.join(_TABLE_HEAD)} |", "|---|---|" + "---:|" * (len(_TABLE_HEAD) - 2)]
    for dataset, rates in BEST_TABLE_RATES.items():
        whole = groups.get((dataset, WHOLE_TABLE.name, "torch"), [])
        for optimizer, rate in rates.items():
            cell = groups.get((dataset, of_rows(optimizer, rate).name, "torch"), [])
            if cell and whole:
                share = paired_ratio(cell, whole, _PAIRED)
                fields = (
                    dataset, optimizer, f"{rate:g}", str(len(cell)),
                    _with_half(interval([float(row["test_ndcg@10"]) for row in cell]), "{:.4f}"),
                    f"{share.mean:.1%}", "" if math.isinf(share.low) else f"{share.low:.1%}",
                    f"{statistics.fmean(int(row['best_epoch']) + 1 for row in cell):.0f}",
                )  # fmt: skip
                lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def by_cell(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """The rows of each (data set, method, framework), in the order of the file. Raises ``ResultsError`` where they are
    of different cells, as after a change of the grid: their mean would mean nothing."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["method"], row["framework"]].append(row)
    for key, group in groups.items():
        if len({row["digest"] for row in group}) > 1:
            raise ResultsError(
                f"{', '.join(key)}: expected rows of one cell, got several digests; remove those of an older grid"
            )
    return dict(groups)


def seconds_to_best(row: Row, column: str) -> float | None:
    """Seconds of GPU time in ``column`` (milliseconds a step) up to the end of the best epoch; None where the cell is
    not timed."""
    if not row[column]:
        return None
    return (int(row["best_epoch"]) + 1) * int(row["steps_per_epoch"]) * float(row[column]) / 1000


def _place(row: Row) -> tuple[int, int, str]:
    """Methods in the grid's order, then more or fewer negatives by their number, then others by name."""
    names = [method.name for method in METHODS]
    if row["method"] in names:
        return names.index(row["method"]), 0, ""
    swept = row["method"].startswith(f"{GROUPED.name}, K=")
    return len(names), int(row["num_negatives"] or 0) if swept else 2**31, row["method"]


def _line(method: str, cell: list[Row], full: list[Row]) -> str:
    compared = relative_difference(cell, full) if full and cell is not full else None
    fields = [
        method,
        str(len(cell)),
        _with_half(interval([float(row["test_ndcg@10"]) for row in cell]), "{:.4f}"),
        _with_half(interval([float(row["test_hr@10"]) for row in cell]), "{:.4f}"),
        "" if compared is None else _with_half(compared, "{:.1f}%", shift=1, scale=100),
        f"{statistics.fmean(float(row['test_coverage@10']) for row in cell):.3f}",
        f"{statistics.fmean(int(row['best_epoch']) + 1 for row in cell):.0f}",
        *(_mean([float(row[name]) for row in cell if row[name]], "{:.3f}") for name in ("loss_ms", "step_ms")),
        *(
            _mean([value for row in cell if (value := seconds_to_best(row, name)) is not None], "{:.2f}")
            for name in ("loss_ms", "step_ms")
        ),
        _mean([float(row["loss_mib"]) for row in cell if row["loss_mib"]], "{:.0f}"),
        f"{statistics.fmean(float(row['train_seconds']) for row in cell) / 60:.2f}",
    ]
    return f"| {' | '.join(fields)} |"


def _with_half(found: Interval, form: str, *, shift: float = 0.0, scale: float = 1.0) -> str:
    text = form.format((found.mean + shift) * scale)
    return text if math.isinf(found.high) else f"{text} ± {form.format((found.high - found.mean) * scale)}"


def _mean(values: list[float], form: str) -> str:
    return form.format(statistics.fmean(values)) if values else ""
