"""Images of the study: what each loss reaches, when it gets there, and how many negatives it takes."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .cells import (
    BALANCED,
    BALANCED_SETS,
    BATCHES,
    FULL,
    LENGTHS,
    METHODS,
    MOST_NEGATIVES,
    NEGATIVES,
    balanced,
    grouped,
    longer,
)
from .intervals import interval, relative_difference
from .results import Row
from .table import EAGER_LIMIT, by_cell, eager_bytes

Groups = dict[tuple[str, str, str], list[Row]]

COLOURS = {
    "CE": "#000000",
    "CE-, groups of 128": "#0b4f9c",
    "CE-, independent": "#4f9be0",
    "CE-, groups of 32": "#00897b",
    "CE-, groups of 128, rows in order": "#8e24aa",
    "CE-, groups of 32, rows in order": "#ce93d8",
    "CE-, one draw a batch": "#5d4037",
    "BCE": "#c62828",
    "BCE+": "#ef6c00",
    "gBCE": "#f9a825",
    "SCE": "#2e7d32",
    "popularity": "#616161",
    "popularity, uncorrected": "#bdbdbd",
}
_BALANCE_COLOURS = ("#90caf9", "#42a5f5", "#a5d6a7", "#43a047", "#ffcc80", "#ef6c00")
LOOK: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "axes.axisbelow": True, "legend.frameon": False, "axes.titlelocation": "left",
}  # fmt: skip


def draw_all(rows: list[Row], out: Path) -> list[Path]:
    """The images that ``rows`` suffice for."""
    groups = by_cell(row for row in rows if row["framework"] == "torch")
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    compared = [data for data in _datasets(groups) if sum((data, m.name, "torch") in groups for m in METHODS) > 2]
    swept = [data for data in _datasets(groups) if len(_sweep(groups, data)) > 1]
    with mpl.rc_context(LOOK):
        if compared:
            made.append(_save(_losses(groups, compared), out / "study_losses.png"))
        timed = [data for data in compared if any(cell[0]["loss_ms"] for key, cell in groups.items() if key[0] == data)]
        if timed:
            made.append(_save(_time(groups, timed), out / "study_time.png"))
        if swept:
            made.append(_save(_negatives(groups, swept), out / "study_negatives.png"))
        balanced_sets = [data for data in BALANCED_SETS if any(_balance_line(groups, data, *pair) for pair in _PAIRS)]
        if balanced_sets:
            made.append(_save(_balance(groups, balanced_sets), out / "study_balance.png"))
    return made


def draw_epochs(rows: list[Row], out: Path) -> Path:
    """Seconds of an epoch of the training commands in bars: the loss and the rest of the GPU's steps, where they were
    measured, the batches on the host, what else training takes, the checkpoint, and validation."""
    out.mkdir(parents=True, exist_ok=True)
    datasets = sorted({row["dataset"] for row in rows})
    with mpl.rc_context(LOOK):
        figure, axes = _figure(1, width=8.0, height=3.0, rows=len(datasets))
        for (axis,), data in zip(axes, datasets, strict=True):
            _epoch_bars(axis, [row for row in rows if row["dataset"] == data])
            axis.set_title(data)
            axis.set_xlabel("seconds of an epoch")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper")
        return _save(figure, out / "study_epochs.png")


_EPOCH_COLOURS = ("#0b4f9c", "#4f9be0", "#616161", "#bdbdbd", "#8d6e63", "#ef6c00")


def _epoch_bars(axis: Axes, rows: list[Row]) -> None:
    for place, row in enumerate(rows):
        steps = int(row["steps"]) / 1000
        loss, step = (steps * float(row[name]) if row[name] else 0.0 for name in ("loss_ms", "step_ms"))
        training, saving, validation, batches = (
            float(row[f"{name}_seconds"]) for name in ("training", "saving", "validation", "batches")
        )
        parts = {
            "loss, GPU": loss,
            "rest of the steps, GPU": step - loss,
            "batches, host": batches,
            "rest of training": max(training - step - batches - saving, 0.0),
            "checkpoint": saving,
            "validation": max(validation, 0.0),
        }
        start = 0.0
        for (name, width), colour in zip(parts.items(), _EPOCH_COLOURS, strict=True):
            axis.barh([-place], [width], left=[start], color=colour, label=name if place == 0 else None)
            start += width
    labels = [f"{row['method']} ({'PyTorch' if row['framework'] == 'torch' else 'JAX'})" for row in rows]
    axis.set_yticks([-place for place in range(len(rows))], labels)


def _datasets(groups: Groups) -> list[str]:
    return list(dict.fromkeys(data for data, _, _ in groups))


def _methods(groups: Groups, data: str) -> list[tuple[str, list[Row]]]:
    found = ((method.name, groups.get((data, method.name, "torch"))) for method in METHODS)
    return [(name, cell) for name, cell in found if cell]


def _figure(columns: int, *, width: float, height: float, rows: int = 1) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(line) for line in axes]


def _losses(groups: Groups, datasets: list[str]) -> Figure:
    """Test NDCG@10 of each method with its interval; CE's mean as a line."""
    names = [method.name for method in METHODS]
    figure, axes = _figure(len(datasets), width=4.6, height=3.8)
    for index, (axis, data) in enumerate(zip(axes[0], datasets, strict=True)):
        for name, cell in _methods(groups, data):
            found = interval([float(row["test_ndcg@10"]) for row in cell])
            half = 0.0 if math.isinf(found.high) else found.high - found.mean
            axis.errorbar(
                [found.mean], [-names.index(name)], xerr=[half], fmt="o", color=COLOURS[name], capsize=3, markersize=5
            )
            if name == FULL.name:
                axis.axvline(found.mean, color="#000000", linestyle=":", linewidth=1)
        axis.set_title(data)
        axis.set_xlabel("test NDCG@10, mean and 95% interval over seeds")
        axis.set_yticks([-place for place in range(len(names))], names if index == 0 else [""] * len(names))
    return figure


def _time(groups: Groups, datasets: list[str]) -> Figure:
    """Validation NDCG@10 against the GPU seconds spent so far, on the loss and on whole steps; longer runs dashed."""
    figure, axes = _figure(len(datasets), width=4.6, height=3.4, rows=2)
    costs = (("loss_ms", "GPU seconds in the loss"), ("step_ms", "GPU seconds of training"))
    for line, (column, label) in zip(axes, costs, strict=True):
        for axis, data in zip(line, datasets, strict=True):
            for method in METHODS:
                for name, style in ((method.name, "-"), (longer(method).name, "--")):
                    cell = groups.get((data, name, "torch"))
                    if cell and cell[0][column]:
                        seconds, curve = _curve(cell, column)
                        axis.plot(seconds, curve, style, color=COLOURS[method.name], label=name, linewidth=1.2)
            axis.set_xscale("log")
            axis.set_xlabel(label)
            axis.set_ylabel("validation NDCG@10")
            axis.set_title(data)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _negatives(groups: Groups, datasets: list[str]) -> Figure:
    """NDCG@10 of grouped CE- as a share of CE's, against the number of negatives."""
    figure, axes = _figure(len(datasets), width=2.9, height=3.0)
    for axis, data in zip(axes[0], datasets, strict=True):
        full = groups[data, FULL.name, "torch"]
        sweep = _sweep(groups, data)
        found = [(k, relative_difference(cell, full)) for k, cell in sweep]
        points = [(k, 100 * (1 + d.mean), 100 * (d.high - d.mean)) for k, d in found]
        halves = [0.0 if math.isinf(half) else half for _, _, half in points]
        axis.errorbar(
            [k for k, _, _ in points],
            [mean for _, mean, _ in points],
            yerr=halves,
            fmt="o-",
            color="#0b4f9c",
            capsize=3,
        )
        axis.axhline(99, color="#c62828", linestyle=":", linewidth=1)
        axis.axhline(100, color="#000000", linestyle=":", linewidth=1)
        axis.set_xscale("log", base=4)
        ticks = [k for k, _, _ in points]
        axis.set_xticks(ticks, [f"{k // 1024}k" if k >= 1024 else str(k) for k in ticks], fontsize=8)
        axis.set_title(data)
        axis.set_xlabel("negatives K")
    axes[0][0].set_ylabel("test NDCG@10, % of full CE\n(dotted: 100 and 99)")
    return figure


def _sweep(groups: Groups, data: str) -> list[tuple[int, list[Row]]]:
    """Number of negatives and rows of grouped CE-, where full CE is there to compare with."""
    if (data, FULL.name, "torch") not in groups:
        return []
    found = (
        (k, groups.get((data, grouped(k).name, "torch"))) for k in (*NEGATIVES, *sorted(set(MOST_NEGATIVES.values())))
    )
    return [(k, cell) for k, cell in found if cell]


_PAIRS = tuple(itertools.product(BATCHES, LENGTHS))


def _balance(groups: Groups, datasets: list[str]) -> Figure:
    """NDCG@10 against the number of negatives for each batch size and length; hollow where gathered rows of eager CE-
    pass 40 GB."""
    figure, axes = _figure(len(datasets), width=4.2, height=3.4)
    for axis, data in zip(axes[0], datasets, strict=True):
        for (batch_size, length), colour in zip(_PAIRS, _BALANCE_COLOURS, strict=True):
            points = _balance_line(groups, data, batch_size, length)
            style = "-" if length == LENGTHS[-1] else "--"
            label = f"{batch_size} users of {length}"
            axis.plot([k for k, _, _ in points], [value for _, value, _ in points], style, color=colour, label=label)
            for k, value, eager in points:
                axis.plot([k], [value], "o", color=colour, fillstyle="none" if eager > EAGER_LIMIT else "full")
        axis.set_xscale("log", base=4)
        axis.set_xticks(BALANCED, [str(k) for k in BALANCED])
        axis.set_title(data)
        axis.set_xlabel("negatives K, one seed a point")
    axes[0][0].set_ylabel("test NDCG@10")
    axes[0][0].plot([], [], "o", color="#616161", fillstyle="none", label="eager CE- above 40 GB")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _balance_line(groups: Groups, data: str, batch_size: int, length: int) -> list[tuple[int, float, float]]:
    """Number of negatives, mean NDCG@10 and bytes of eager CE- of the cells of one batch size and length."""
    found = ((k, groups.get((data, balanced(batch_size, k, length).name, "torch"))) for k in BALANCED)
    return [
        (k, statistics.fmean(float(row["test_ndcg@10"]) for row in cell), eager_bytes(cell[0]))
        for k, cell in found
        if cell
    ]


def _curve(cell: list[Row], column: str) -> tuple[list[float], list[float]]:
    """Seconds up to each validation, of steps that take ``column`` milliseconds, and the mean over seeds of what it
    found."""
    curves = [[float(value) for value in row["valid_curve"].split()] for row in cell]
    means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
    first = cell[0]
    between = int(first["epochs"]) / len(means) * int(first["steps_per_epoch"]) * float(first[column]) / 1000
    return [between * (i + 1) for i in range(len(means))], means


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)
    return path
