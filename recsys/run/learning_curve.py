"""A picture of a run: training loss and validation metrics by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .metrics_log import read_metrics_log
from .progress import SELECTION_METRIC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Of a run each: Okabe and Ito's, which colour-blind people tell apart."""

_LETTERS = 90
"""That fit into a line of the legend."""


def plot_learning_curve(runs: Mapping[str, Path], path: Path, *, baselines: Mapping[str, float] | None = None) -> None:
    """Draws the metrics logs ``runs``, by name, into the image ``path``: the training loss and the selection metric by
    epoch (from 0, as in the log), the best epoch marked; ``baselines`` are metrics to compare with, drawn as lines."""
    learning_curve(runs, baselines or {}).savefig(path, dpi=130)


def learning_curve(runs: Mapping[str, Path], baselines: Mapping[str, float]) -> Figure:
    """The picture of `plot_learning_curve`."""
    from matplotlib.figure import Figure  # here, because importing it takes long and serving does without

    columns = max(1, min(4, _LETTERS // (6 + max(map(len, runs), default=0))))
    figure = Figure(figsize=(8.3, 3.4 + 0.2 * (len(runs) // columns)), layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    best: list[tuple[float, float, str]] = []
    for place, (name, log) in enumerate(runs.items()):
        rows, colour = read_metrics_log(log), _COLOURS[place % len(_COLOURS)]
        losses.plot([row["epoch"] for row in rows], [row["train_loss"] for row in rows], ".-", color=colour, label=name)
        measured = [(row["epoch"], row[SELECTION_METRIC]) for row in rows if SELECTION_METRIC in row]
        if measured:
            metrics.plot(*zip(*measured, strict=True), marker=".", color=colour)
            epoch, value = max(measured, key=lambda point: point[1])
            best.append((value, epoch, colour))
    for number, (value, epoch, colour) in enumerate(best):
        label = None if number else "best epoch"
        metrics.plot(epoch, value, "o", color=colour, fillstyle="none", markersize=10, label=label)
    for name, value in baselines.items():
        metrics.axhline(value, color="grey", linestyle="--", label=name)
    losses.set(xlabel="epoch", ylabel="training loss (nats)")
    metrics.set(xlabel="epoch", ylabel=f"validation {SELECTION_METRIC.upper()} (0 to 1)")
    if best:
        value, epoch, _ = max(best)
        metrics.set_title(f"best: {value:.4f} in epoch {epoch:g}", loc="left", fontsize=10)
    for axes in (losses, metrics):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    handles = [handle for axes in (losses, metrics) for handle in axes.get_legend_handles_labels()[0]]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure
