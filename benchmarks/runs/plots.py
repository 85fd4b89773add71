"""Images of whole runs, one message each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..study.plots import LOOK
from .cases import targets
from .results import Row
from .table import NAMES, place

_OURS = {"torch": "#0b4f9c", "jax": "#4f9be0"}
_COLOURS = {**_OURS, "plain": "#9e9e9e", "rectools": "#ef6c00"}
_AIM = "#c62828"

_RUNS = ("command", "million", "quality")


def draw_all(rows: list[Row], out: Path) -> list[Path]:
    """The images that ``rows`` suffice for."""
    parts = ("epoch", *_RUNS, "ranking", "peer")
    of = {part: sorted((row for row in rows if row["part"] == part), key=place) for part in parts}
    runs = [row for part in _RUNS for row in of[part]]
    epochs = [row for row in of["epoch"] if row["gpu_seconds"]]
    drawings = (
        ("runs_epoch.png", epochs, _epoch),
        ("runs_commands.png", runs, _commands),
        ("runs_ranking.png", of["ranking"], _ranking),
        ("runs_peer.png", of["peer"], _peer),
    )
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with mpl.rc_context(LOOK):
        for name, own, draw in drawings:
            if own:
                figure = draw(own)
                FigureCanvasAgg(figure)
                figure.savefig(out / name, dpi=130)
                made.append(out / name)
    return made


def _figure(bars: int, title: str, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 1.2 + 0.3 * bars), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return figure, axes


def _bars(axes: Axes, widths: Sequence[float], labels: Sequence[str], colours: Sequence[str], form: str) -> None:
    """Bars from the top to the bottom with their numbers at their ends."""
    drawn = axes.barh(range(len(widths)), widths, color=list(colours))
    axes.bar_label(drawn, [form.format(width) for width in widths], padding=3, fontsize=8)
    axes.set_yticks(range(len(widths)), list(labels))
    axes.invert_yaxis()
    axes.margins(x=0.12)


def _epoch(rows: list[Row]) -> Figure:
    """How near an epoch comes to the GPU's own time."""
    figure, axes = _figure(
        3 * len(rows), f"an epoch of git_commits, {rows[0]['steps']} steps, {rows[0]['gpu']}", "seconds"
    )
    parts = (("gpu_seconds", "the GPU's work"), ("seconds", "steps"), ("whole_seconds", "with validation, checkpoint"))
    told = [(row, column, name) for row in rows for column, name in parts]
    _bars(
        axes,
        [float(row[column]) for row, column, _ in told],
        [f"{NAMES[row['framework']]}: {name}" for row, _, name in told],
        ["#bdbdbd" if column == "gpu_seconds" else _OURS[row["framework"]] for row, column, _ in told],
        "{:.2f}",
    )
    for bar, (row, column, _) in enumerate(told):
        for target in targets("epoch", row["method"], row["framework"]):
            if {"steps_over_gpu": "seconds", "whole_over_gpu": "whole_seconds"}[target.column] == column:
                _aim(axes, target.most * float(row["gpu_seconds"]), bar)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def _commands(rows: list[Row]) -> Figure:
    """Where the time from a command to its result goes."""
    figure, axes = _figure(
        len(rows), f"the whole command, a new process, {rows[0]['gpu']}", "seconds from the command to its result"
    )
    colours = {"start, data, test": "#bdbdbd", "first epoch": "#4f9be0", "later epochs": "#0b4f9c"}
    for bar, row in enumerate(rows):
        seconds, training, first = (float(row[name]) for name in ("seconds", "training_seconds", "first_epoch_seconds"))
        start = 0.0
        for name, width in zip(colours, (seconds - training, first, training - first), strict=True):
            axes.barh([bar], [width], left=[start], color=colours[name], label=name if bar == 0 else None)
            start += width
        axes.annotate(f"{seconds:.1f}", (seconds, bar), (3, 0), textcoords="offset points", va="center", fontsize=8)
        for target in targets(row["part"], row["method"], row["framework"]):
            _aim(axes, target.most, bar)
    labels = [
        f"{NAMES[row['framework']]}, {row['dataset']}" + (f", {row['method']}" if row["part"] == "command" else "")
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
    return figure


def _ranking(rows: list[Row]) -> Figure:
    """Our ranking beside a matrix product with ``topk``."""
    figure, axes = _figure(len(rows), f"ranks and k best items, {rows[0]['gpu']}", "milliseconds")
    _bars(
        axes,
        [float(row["ms"]) for row in rows],
        [f"{row['dataset']}, {row['method']}: {NAMES[row['framework']]}" for row in rows],
        [_COLOURS[row["framework"]] for row in rows],
        "{:.2f}",
    )
    return figure


def _peer(rows: list[Row]) -> Figure:
    """Our epochs beside RecTools'."""
    sizes = "SASRec, width 128, 2 blocks, 256 users of 50 items, bf16"
    figure, axes = _figure(len(rows), f"an epoch's steps on git_commits, {sizes}, {rows[0]['gpu']}", "seconds")
    _bars(
        axes,
        [float(row["seconds"]) for row in rows],
        [f"{row['method']}: {NAMES[row['framework']]}" + _ours(row) for row in rows],
        [_COLOURS[row["framework"]] for row in rows],
        "{:.2f}",
    )
    return figure


def _ours(row: Row) -> str:
    return " (CCE-minus)" if row["framework"] in _OURS else ""


def _aim(axes: Axes, value: float, bar: int) -> None:
    """A mark of what is aimed at, on the bar of that number."""
    known = _AIM_LABEL in axes.get_legend_handles_labels()[1]
    axes.plot([value, value], [bar - 0.4, bar + 0.4], color=_AIM, linewidth=2, label=None if known else _AIM_LABEL)


_AIM_LABEL = "aim"
