"""The results as Markdown tables, a part each."""

from __future__ import annotations

from collections.abc import Callable

from .cases import LEAST_NDCG, PARTS, RANKINGS, WARM, Target, targets
from .results import Row

NAMES = {"torch": "PyTorch", "jax": "JAX", "plain": "plain PyTorch", "rectools": "RecTools"}

_Column = tuple[str, Callable[[Row], str]]


def markdown(rows: list[Row]) -> str:
    """A table for each part that has rows; the machines under them."""
    tables: list[str] = []
    for part in PARTS:
        own = sorted((row for row in rows if row["part"] == part), key=place)
        if own:
            columns = [("data", _text("dataset")), ("", _text("method")), ("", _framework), *_COLUMNS[part]]
            head = f"| {' | '.join(name for name, _ in columns)} |\n|---|---|---|{'---:|' * (len(columns) - 3)}"
            lines = [f"| {' | '.join(cell(row) for _, cell in columns)} |" for row in own]
            tables.append("\n".join([f"{PARTS[part][0].upper()}{PARTS[part][1:]}:", "", head, *lines]))
    machines = dict.fromkeys(map(machine, rows))
    return "\n\n".join([*tables, *machines])


def machine(row: Row) -> str:
    """What a row was measured on and with."""
    peer = f", {row['peer']}" if row.get("peer") else ""
    return (
        f"{row['gpu']}, {row['cores']} cores, Python {row['python']}, torch {row['torch']}, triton {row['triton']}, "
        f"jax {row['jax']}{peer}, commit {row['commit']}"
    )


def ratio(row: Row, column: str) -> float | None:
    """Seconds of ``column`` over the GPU's; None where one was not measured."""
    return float(row[column]) / float(row["gpu_seconds"]) if row["gpu_seconds"] and row[column] else None


def reached(row: Row, target: Target) -> float | None:
    """What ``row`` has for ``target``."""
    if target.column == "steps_over_gpu":
        return ratio(row, "seconds")
    if target.column == "whole_over_gpu":
        return ratio(row, "whole_seconds")
    return float(row[target.column]) if row[target.column] else None


def place(row: Row) -> tuple[int, str, int, str, int]:
    """Where a row of a part stands: rankings in their order, else by data set and method; ours first."""
    ranked = [(case.dataset, case.method) for case in RANKINGS]
    key = row["dataset"], row["method"]
    case = ranked.index(key) if key in ranked else len(ranked)
    return case, row["dataset"], row["method"] == WARM, row["method"], list(NAMES).index(row["framework"])


def _framework(row: Row) -> str:
    return NAMES[row["framework"]]


def _text(column: str) -> Callable[[Row], str]:
    return lambda row: row[column]


def _number(column: str, form: str) -> Callable[[Row], str]:
    return lambda row: form.format(float(row[column])) if row[column] else ""


def _ratio(column: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = ratio(row, column)
        return "" if value is None else f"{value:.2f}"

    return cell


def _aimed(column: str) -> Callable[[Row], str]:
    """What is aimed at in a column, with a mark where it was missed."""

    def cell(row: Row) -> str:
        for target in targets(row["part"], row["method"], row["framework"]):
            if target.column == column:
                value = reached(row, target)
                return f"{target.most:g}" + (", missed" if value is not None and value > target.most else "")
        return ""

    return cell


def _ndcg(row: Row) -> str:
    if not row["test_ndcg@10"]:
        return ""
    missed = row["part"] == "quality" and float(row["test_ndcg@10"]) < LEAST_NDCG
    return f"{float(row['test_ndcg@10']):.4f}" + (f" (at least {LEAST_NDCG:g}: missed)" if missed else "")


_WHOLE_RUN: list[_Column] = [
    ("seconds", _number("seconds", "{:.1f}")),
    ("aim", _aimed("seconds")),
    ("of them training", _number("training_seconds", "{:.1f}")),
    ("first epoch", _number("first_epoch_seconds", "{:.1f}")),
    ("epochs", _text("epochs")),
    ("test NDCG@10", _ndcg),
]

_COLUMNS: dict[str, list[_Column]] = {
    "epoch": [
        ("steps", _text("steps")),
        ("GPU, s", _number("gpu_seconds", "{:.3f}")),
        ("steps, s", _number("seconds", "{:.3f}")),
        ("of GPU", _ratio("seconds")),
        ("aim", _aimed("steps_over_gpu")),
        ("whole epoch, s", _number("whole_seconds", "{:.3f}")),
        ("of GPU", _ratio("whole_seconds")),
        ("aim", _aimed("whole_over_gpu")),
    ],
    "command": _WHOLE_RUN,
    "million": _WHOLE_RUN,
    "quality": _WHOLE_RUN,
    "ranking": [("ms", _number("ms", "{:.2f}")), ("MiB above the table", _number("mib", "{:.0f}"))],
    "peer": [("steps", _text("steps")), ("steps, s", _number("seconds", "{:.3f}"))],
}
