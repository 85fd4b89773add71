"""A picture of a run: training loss and validation metrics by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .metrics_log import read_metrics_log
from .progress import SELECTION_METRIC


def plot_learning_curve(runs: Mapping[str, Path], path: Path, *, baselines: Mapping[str, float] | None = None) -> None:
    """Draws the metrics logs ``runs``, by name, into the image ``path``: the training loss and the selection metric by
    epoch (from 0, as in the log), the best epoch marked; ``baselines`` are metrics to compare with, drawn as lines."""
    from matplotlib.figure import Figure  # here, because importing it takes long and serving does without

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    for name, log in runs.items():
        rows = read_metrics_log(log)
        losses.plot([row["epoch"] for row in rows], [row["train_loss"] for row in rows], label=name)
        measured = [(row["epoch"], row[SELECTION_METRIC]) for row in rows if SELECTION_METRIC in row]
        if measured:
            (line,) = metrics.plot(*zip(*measured, strict=True), marker=".", label=name)
            metrics.plot(
                *max(measured, key=lambda point: point[1]),
                marker="o",
                color=line.get_color(),
                fillstyle="none",
                markersize=10,
            )
    for name, value in (baselines or {}).items():
        metrics.axhline(value, color="grey", linestyle="--", label=name)
    losses.set(xlabel="epoch", ylabel="training loss (nats)")
    metrics.set(xlabel="epoch", ylabel=f"validation {SELECTION_METRIC.upper()} (0 to 1)")
    for axes in (losses, metrics):
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=120)
