"""The parts of the study's grid by name, and which runs belong to them."""

from __future__ import annotations

from collections.abc import Iterable

from .cells import (
    DATASETS,
    Run,
    balance_runs,
    longer_runs,
    loss_runs,
    negative_runs,
    table_rate_runs,
    table_runs,
)
from .defaults import TUNED_SETS, default_runs, search_runs

NAMES = tuple(dict.fromkeys((*DATASETS, *TUNED_SETS)))
"""The data sets."""

PARTS = {
    "losses": loss_runs,
    "longer": longer_runs,
    "negatives": negative_runs,
    "balance": balance_runs,
    "table-rates": table_rate_runs,
    "tables": table_runs,
    "defaults": default_runs,
    "search": search_runs,
}
"""The parts of the grid by name, in the order in which they are worth their time; a run may belong to several."""


def select(parts: Iterable[str], datasets: Iterable[str] = ()) -> list[Run]:
    """The runs of ``parts`` on ``datasets`` (all if empty), each once. Raises ``KeyError`` with a message for unknown
    names."""
    parts, datasets = list(parts), list(datasets)
    for given, known, what in ((parts, PARTS, "part"), (datasets, NAMES, "data set")):
        for name in given:
            if name not in known:
                raise KeyError(f"{what}: expected one of {', '.join(known)}, got {name}")
    runs = {run.key: run for part in parts for run in PARTS[part]()}
    return [run for run in runs.values() if not datasets or run.cell.dataset.name in datasets]
