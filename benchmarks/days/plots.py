"""An image of warm starts: how many steps the quality of a full retraining takes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..study.plots import LOOK
from .cells import FULL, WARM
from .results import Row, Runs, by_chain
from .table import curve, span

_COLOURS = {FULL: "#9e9e9e", WARM: "#0b4f9c"}
_NAMES = {FULL: "full retraining, to its best epoch", WARM: "warm start from the run on yesterday's log"}


def draw(rows: list[Row], out: Path) -> Path | None:
    """Draws ``warm_start.png``, the seeds of each data set's first day in PyTorch; nothing without such rows."""
    first: dict[str, dict[str, list[Runs]]] = {}
    for (dataset, day, length, framework, _), runs in by_chain(rows).items():
        if framework == "torch":
            first.setdefault(dataset, {}).setdefault(span(day, length), []).append(runs)
    if not first:
        return None
    out.mkdir(parents=True, exist_ok=True)
    path = out / "warm_start.png"
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(1 + 3.6 * len(first), 3.2), layout="constrained")
        panels = figure.subplots(1, len(first), squeeze=False)[0]
        for axes, (dataset, days) in zip(panels, first.items(), strict=True):
            day, chains = next(iter(days.items()))
            _curves(axes, chains)
            axes.set(title=f"{dataset}, {day}", xlabel="steps of the optimizer", ylabel="validation NDCG@10 (0 to 1)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(first))
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130)
    return path


def _curves(axes: Axes, chains: list[Runs]) -> None:
    """A line a run; what a full retraining does after its best epoch is of no use and left out."""
    for number, runs in enumerate(chains):
        for kind in (FULL, WARM):
            row = runs[kind]
            epochs = int(row["best_epoch"]) + 1 if kind == FULL else int(row["epochs"])
            steps = [epoch * int(row["steps_per_epoch"]) for epoch in range(1, epochs + 1)]
            label = _NAMES[kind] if number == 0 else None
            axes.plot(
                steps, curve(row)[:epochs], color=_COLOURS[kind], linewidth=1, marker=".", markersize=3, label=label
            )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
