"""The training command's defaults beside the best of the search, as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from .defaults import DEFAULTS, FINALISTS, IN_TIME, TUNED_SETS, draws
from .results import Row
from .table import by_cell

OF_PRODUCT = frozenset(method.name for method in (DEFAULTS, IN_TIME, *draws()))
"""Methods whose rows this table has, and no other."""

_HEAD = (
    "data set", "users of a batch", "negatives", "defaults, NDCG@10", "best of the search, NDCG@10",
    "defaults over best", "seeds", "the search's best", "defaults, split in time",
)  # fmt: skip


class Compared(NamedTuple):
    """The rows of the defaults and of the search's best on a data set, of the same seeds."""

    defaults: list[Row]
    best: list[Row]

    @property
    def share(self) -> float:
        return _test(self.defaults) / _test(self.best)


def compared(rows: Iterable[Row]) -> dict[str, Compared]:
    """By data set, what the defaults reach and what the draw with the best mean validation NDCG@10 does; sets without
    all their rows are left out."""
    groups = by_cell(row for row in rows if row["method"] in OF_PRODUCT)
    found = {}
    for name in TUNED_SETS:
        methods = draws()
        finalists = [methods[number] for number in FINALISTS.get(name, range(len(methods)))]
        cells = [groups.get((name, method.name, "torch"), []) for method in finalists]
        defaults = groups.get((name, DEFAULTS.name, "torch"), [])
        seeds = {row["seed"] for row in defaults}
        if seeds and all({row["seed"] for row in cell} == seeds for cell in cells):
            found[name] = Compared(defaults, max(cells, key=_valid))
    return found


def defaults_table(rows: Iterable[Row]) -> str:
    """A line for each data set; empty without such rows."""
    rows = list(rows)
    in_time = by_cell(row for row in rows if row["method"] == IN_TIME.name)
    lines = [f"| {' | '.join(_HEAD)} |", "|---|" + "---:|" * (len(_HEAD) - 3) + "---|---:|"]
    for name, (defaults, best) in (found := compared(rows)).items():
        cell = in_time.get((name, IN_TIME.name, "torch"))
        fields = (
            name, defaults[0]["batch_size"], _negatives(defaults[0]), f"{_test(defaults):.4f}", f"{_test(best):.4f}",
            f"{found[name].share:.1%}", str(len(defaults)), best[0]["method"], f"{_test(cell):.4f}" if cell else "",
        )  # fmt: skip
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) if found else ""


def _negatives(row: Row) -> str:
    return row["negatives"] if row["negatives"] == "all" else row["num_negatives"]


def _valid(cell: list[Row]) -> float:
    return statistics.fmean(float(row["valid_ndcg@10"]) for row in cell)


def _test(cell: list[Row]) -> float:
    return statistics.fmean(float(row["test_ndcg@10"]) for row in cell)
