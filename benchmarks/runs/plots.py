"""Images of whole runs, one message each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_RUN_PARTS = {"start, data, test": "#bdbdbd", "first epoch": "#4f9be0", "later epochs": "#0b4f9c"}

_RUNS = ("command", "million", "quality")


def draw_all(rows: list[Row], out: Path) -> list[Path]:
    """The images that ``rows`` suffice for."""
    parts = ("epoch", *_RUNS, "ranking", "peer")
    of = {part: sorted((row for row in rows if row["part"] == part), key=place) for part in parts}
    drawings = (
        ("runs_epoch.png", [row for row in of["epoch"] if row["gpu_seconds"]], _epoch),
        ("runs_commands.png", [row for part in _RUNS for row in of[part]], _commands),
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


def _epoch(rows: list[Row]) -> Figure:
    """How near an epoch comes to the GPU's own time."""
    parts = {"gpu_seconds": "the GPU's work", "seconds": "steps", "whole_seconds": "with validation and checkpoint"}
    aims = {"steps_over_gpu": "seconds", "whole_over_gpu": "whole_seconds"}
    told = [(row, column) for row in rows for column in parts]
    labels = [f"{NAMES[row['framework']]}: {parts[column]}" for row, column in told]
    figure, axes = _figure(labels, f"an epoch of git_commits, {rows[0]['steps']} steps, {rows[0]['gpu']}", "seconds")
    for bar, (row, column) in enumerate(told):
        colour = "#bdbdbd" if column == "gpu_seconds" else _OURS[row["framework"]]
        axes.barh([bar], [float(row[column])], color=colour)
        own = [aim for aim in targets("epoch", row["method"], row["framework"]) if aims[aim.column] == column]
        aim = own[0].most * float(row["gpu_seconds"]) if own else None
        _number(axes, bar, float(row[column]), "{:.2f}", aim)
    return _with_legend(figure, axes)


def _commands(rows: list[Row]) -> Figure:
    """Where the time from a command to its result goes."""
    labels = [
        f"{NAMES[row['framework']]}, {row['dataset']}" + (f", {row['method']}" if row["part"] == "command" else "")
        for row in rows
    ]
    title = f"the whole command, a new process, {rows[0]['gpu']}"
    figure, axes = _figure(labels, title, "seconds from the command to its result")
    for bar, row in enumerate(rows):
        seconds, training, first = (float(row[name]) for name in ("seconds", "training_seconds", "first_epoch_seconds"))
        start = 0.0
        for name, width in zip(_RUN_PARTS, (seconds - training, first, training - first), strict=True):
            axes.barh([bar], [width], left=[start], color=_RUN_PARTS[name], label=name if bar == 0 else None)
            start += width
        own = targets(row["part"], row["method"], row["framework"])
        _number(axes, bar, seconds, "{:.1f}", own[0].most if own else None)
    return _with_legend(figure, axes)


def _ranking(rows: list[Row]) -> Figure:
    """Our ranking beside a matrix product with ``topk``."""
    title = f"ranks and k best items, {rows[0]['gpu']}"
    return _groups(rows, "ms", title, "milliseconds", lambda row: f"{row['dataset']}, {row['method']}")


def _peer(rows: list[Row]) -> Figure:
    """Our epochs beside RecTools'."""
    title = f"SASRec on git_commits: width 128, 2 blocks, 256 users of 50 items a batch, bf16; {rows[0]['gpu']}"
    return _groups(rows, "seconds", title, "seconds of an epoch's steps", lambda row: row["method"])


def _groups(rows: list[Row], column: str, title: str, unit: str, group: Callable[[Row], str]) -> Figure:
    """A bar a row, those of a group under its name, frameworks by their colour."""
    labels = [group(row) if bar == 0 or group(rows[bar - 1]) != group(row) else "" for bar, row in enumerate(rows)]
    figure, axes = _figure(labels, title, unit)
    named: set[str] = set()
    for bar, row in enumerate(rows):
        framework = row["framework"]
        name = f"CCE-minus, {NAMES[framework]}" if framework in _OURS else NAMES[framework]
        axes.barh([bar], [float(row[column])], color=_COLOURS[framework], label=None if name in named else name)
        named.add(name)
        _number(axes, bar, float(row[column]), "{:.2f}", None)
    return _with_legend(figure, axes)


def _figure(labels: Sequence[str], title: str, unit: str) -> tuple[Figure, Axes]:
    """Axes for a bar at each of ``labels``, from the top to the bottom."""
    figure = Figure(figsize=(7.5, 1.3 + 0.26 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(labels)), list(labels))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    return figure, axes


def _number(axes: Axes, bar: int, value: float, form: str, aim: float | None) -> None:
    """The value behind the end of a bar, and a mark of what is aimed at."""
    if aim is not None:
        known = _AIM in axes.get_legend_handles_labels()[1]
        axes.plot([aim, aim], [bar - 0.4, bar + 0.4], color="#c62828", linewidth=2, label=None if known else _AIM)
    at = max(value, aim or 0.0), bar
    axes.annotate(form.format(value), at, (4, 0), textcoords="offset points", va="center", fontsize=8)


_AIM = "at most, as aimed"


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    axes.set_xlim(0, 1.1 * axes.get_xlim()[1])  # room for the numbers
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure
