"""A picture of warm starts: how many steps the quality of a full retraining takes."""

from __future__ import annotations

import statistics

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..pictures import BLUE, LOOK, PLAIN, legend_below, picture, span
from .cells import FULL, WARM
from .results import Row, Runs, by_chain
from .table import curve
from .table import span as day_of

_COLOURS = {FULL: PLAIN, WARM: BLUE}
_NAMES = {FULL: "full retraining, to its best epoch", WARM: "warm start from the run on yesterday's log"}


@mpl.rc_context(LOOK)
def figures(rows: list[Row]) -> dict[str, Figure]:
    """``warm_start.png``, the seeds of each data set's first day in PyTorch; nothing without such rows."""
    first: dict[str, tuple[str, list[Runs]]] = {}
    for (dataset, day, length, framework, _), runs in by_chain(rows).items():
        if framework == "torch":
            shown, chains = first.setdefault(dataset, (day_of(day, length), []))
            if shown == day_of(day, length):
                chains.append(runs)
    if not first:
        return {}
    shares = span([100 * _first_share(chains) for _, chains in first.values()])
    figure, panels = picture(
        f"After one epoch a warm start has {shares}% of the NDCG@10 that a full retraining reaches",
        "SASRec on today's log, a line a seed; warm starts are given a third of a full retraining's steps",
        3.8,
        columns=len(first),
    )
    for axes, (dataset, (day, chains)) in zip(panels, first.items(), strict=True):
        _curves(axes, chains)
        axes.set(title=f"{dataset}, {day}", xlabel="steps of the optimizer", ylabel="validation NDCG@10 (0 to 1)")
    legend_below(figure, panels[0])
    return {"warm_start.png": figure}


def _first_share(chains: list[Runs]) -> float:
    """Of the full retraining's best NDCG@10 what the warm start's first epoch has, the mean over seeds."""
    return statistics.fmean(curve(runs[WARM])[0] / (max(curve(runs[FULL])) or 1.0) for runs in chains)


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
