"""Pictures of whole runs, one message each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..pictures import (
    DARK,
    LOOK,
    OURS,
    PALE,
    PLAIN,
    PURPLE,
    SKY,
    legend_below,
    name_bars,
    number_bars,
    picture,
    span,
)
from .cases import RANKINGS, targets
from .results import Row
from .table import NAMES, place, ratio

_COLOURS = {**OURS, "plain": PLAIN, "rectools": PURPLE}
_NAMES = {**NAMES, **{name: f"CCE-minus, {NAMES[name]}" for name in OURS}}
_RUN_PARTS = {"start, data and test": PALE, "first epoch": SKY, "later epochs": DARK}
_RUNS = {"command": "", "million": "a million items", "quality": "to an NDCG@10"}


@mpl.rc_context(LOOK)
def figures(rows: list[Row]) -> dict[str, Figure]:
    """By file name: those that ``rows`` suffice for."""
    of = {
        part: sorted((row for row in rows if row["part"] == part), key=place)
        for part in ("epoch", *_RUNS, "ranking", "peer")
    }
    drawings: dict[str, tuple[list[Row], Callable[[list[Row]], Figure]]] = {
        "runs_epoch.png": ([row for row in of["epoch"] if row["gpu_seconds"]], _epoch),
        "runs_commands.png": ([row for part in _RUNS for row in of[part]], _commands),
        "runs_ranking.png": (_without_seen(of["ranking"]), _ranking),
        "runs_peer.png": (_with_peer(of["peer"]), _peer),
    }
    return {name: draw(own) for name, (own, draw) in drawings.items() if own}


def _epoch(rows: list[Row]) -> Figure:
    """How near an epoch comes to the GPU's own time."""
    parts = {"gpu_seconds": "the GPU's work", "seconds": "steps", "whole_seconds": "with validation and checkpoint"}
    aims = {"steps_over_gpu": "seconds", "whole_over_gpu": "whole_seconds"}
    told = [(row, column) for row in rows for column in parts]
    over = span([ratio(row, "seconds") or 1.0 for row in rows], "{:.2f}")
    figure, (axes,) = picture(
        f"An epoch's steps take {over} times the GPU's own work in them",
        f"SASRec on git_commits, {rows[0]['steps']} steps, 1,024 negatives; {rows[0]['gpu']}",
        1.5 + 0.28 * len(told),
    )
    ms = [1000 * float(row[column]) for row, column in told]
    colours = [PALE if column == "gpu_seconds" else OURS[row["framework"]] for row, column in told]
    axes.barh(range(len(told)), ms, color=colours)
    name_bars(axes, [f"{NAMES[row['framework']]}, {parts[column]}" for row, column in told], "milliseconds an epoch")
    marks: list[float | None] = []
    for row, column in told:
        own = [aim for aim in targets("epoch", row["method"], row["framework"]) if aims[aim.column] == column]
        marks.append(1000 * own[0].most * float(row["gpu_seconds"]) if own else None)
    number_bars(axes, ms, [f"{value:.0f}" for value in ms], marks)
    if any(marks):
        legend_below(figure, axes)
    return figure


def _commands(rows: list[Row]) -> Figure:
    """Where the time from a command to its result goes."""
    seconds = [float(row["seconds"]) for row in rows]
    figure, (axes,) = picture(
        f"A training command has its tested model after {span(seconds)} seconds",
        f"a new process; the first epoch compiles what is not in a cache; {rows[0]['gpu']}",
        1.5 + 0.28 * len(rows),
    )
    for bar, row in enumerate(rows):
        whole, training, first = (float(row[name]) for name in ("seconds", "training_seconds", "first_epoch_seconds"))
        start = 0.0
        for name, width in zip(_RUN_PARTS, (whole - training, first, training - first), strict=True):
            axes.barh([bar], [width], left=[start], color=_RUN_PARTS[name], label=name if bar == 0 else None)
            start += width
    names = [
        f"{row['dataset'] if row['part'] != 'million' else 'a million items'}, {row['method']}, "
        f"{NAMES[row['framework']]}"
        for row in rows
    ]
    name_bars(axes, names, "seconds from the command to its result")
    own = [targets(row["part"], row["method"], row["framework"]) for row in rows]
    number_bars(axes, seconds, [f"{value:.1f}" for value in seconds], [each[0].most if each else None for each in own])
    legend_below(figure, axes)
    return figure


def _without_seen(rows: list[Row]) -> list[Row]:
    """Leaving out what users have seen takes hardly longer: the table has it."""
    plain = {case.method for case in RANKINGS if not case.seen}
    return [row for row in rows if row["method"] in plain]


def _ranking(rows: list[Row]) -> Figure:
    """Our ranking beside a matrix product with ``topk``, a panel a catalog: times of their own."""
    first = {row["framework"]: float(row["ms"]) for row in rows if _case(row) == _case(rows[0])}
    title = "Ranks and best items of users"
    if "plain" in first and len(first) > 1:
        times = first["plain"] / max(ms for name, ms in first.items() if name != "plain")
        best, items = rows[0]["method"].removeprefix("k="), rows[0]["dataset"].split(", ")[1]
        title = f"The {best} best of {items} are found {times:.0f} times as fast as by a plain matrix product"
    catalogs = list(dict.fromkeys(row["dataset"] for row in rows))
    height = 1.2 + 0.28 * len(rows) + 0.6 * len(catalogs)
    figure, panels = picture(title, f"ranks and best items, float32; {rows[0]['gpu']}", height, rows=len(catalogs))
    for axes, catalog in zip(panels, catalogs, strict=True):
        own = [row for row in rows if row["dataset"] == catalog]
        _bars(axes, own, "ms", lambda row: f"{row['method'].removeprefix('k=')} best")
        axes.set_title(catalog.replace("D=", "width "))
        axes.set_xlabel("milliseconds")
    _legend(figure, rows)
    return figure


def _case(row: Row) -> tuple[str, str]:
    return row["dataset"], row["method"]


def _with_peer(rows: list[Row]) -> list[Row]:
    """Those of losses that the peer was measured with; all where it was with none."""
    peers = {row["method"] for row in rows if row["framework"] not in OURS}
    return [row for row in rows if not peers or row["method"] in peers]


def _peer(rows: list[Row]) -> Figure:
    """Our epochs beside RecTools'."""
    seconds = {row["framework"]: float(row["seconds"]) for row in rows if row["method"] == rows[0]["method"]}
    peer = seconds.get("rectools")
    faster = [f"{peer / seconds[name]:.0f} times ({NAMES[name]})" for name in OURS if peer and name in seconds]
    title = "Seconds of an epoch's steps"
    if faster:
        title = f"RecTools' steps take {' and '.join(faster)} as long as CCE-minus'"
    setup = f"SASRec on git_commits, width 128, 2 blocks, 256 users of 50 items a batch, bf16; {rows[0]['gpu']}"
    figure, (axes,) = picture(title, setup, 1.5 + 0.36 * len(rows))
    _bars(axes, rows, "seconds", lambda row: row["method"])
    axes.set_xlabel("seconds of an epoch's steps")
    _legend(figure, rows)
    return figure


def _bars(axes: Axes, rows: list[Row], column: str, group: Callable[[Row], str]) -> None:
    """A bar a row, frameworks by their colour, the name of a group beside the middle of its bars."""
    values = [float(row[column]) for row in rows]
    axes.barh(range(len(rows)), values, color=[_COLOURS[row["framework"]] for row in rows])
    bars: dict[str, list[int]] = {}
    for bar, row in enumerate(rows):
        bars.setdefault(group(row), []).append(bar)
    name_bars(axes, [""] * len(rows), "")
    axes.set_yticks([sum(each) / len(each) for each in bars.values()], list(bars))
    number_bars(axes, values, [f"{value:.2f}" for value in values])


def _legend(figure: Figure, rows: Iterable[Row]) -> None:
    names = dict.fromkeys(row["framework"] for row in rows)
    handles = [Patch(color=_COLOURS[name], label=_NAMES[name]) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
