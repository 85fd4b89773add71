"""Pictures of the study: what each loss reaches and when, what shared negatives cost, and how many it takes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from ..pictures import (
    BLACK,
    BLUE,
    DARK,
    GREEN,
    LOOK,
    PALE,
    SKY,
    VERMILION,
    legend_below,
    name_bars,
    number_bars,
    picture,
    span,
)
from .cells import (
    BALANCED,
    BALANCED_SETS,
    BATCHES,
    FULL,
    GROUPED,
    INDEPENDENT,
    LENGTHS,
    METHODS,
    MOST_NEGATIVES,
    NEGATIVES,
    K,
    balanced,
    grouped,
    longer,
)
from .intervals import Interval, interval, relative_difference
from .results import Row
from .table import by_cell

Groups = dict[tuple[str, str, str], list[Row]]

_BY_NAME = {method.name: method for method in METHODS}
_SETUP = f"SASRec of width 128, {K} negatives where no other number is said"

# methods: what pictures call them, and the colour of their kind
_LOSSES = {
    FULL.name: ("cross-entropy, every item", BLACK),
    GROUPED.name: ("cross-entropy, sampled", BLUE),
    "popularity": ("the same, popular negatives", BLUE),
    "popularity, uncorrected": ("the same, uncorrected", BLUE),
    "SCE": ("scalable cross-entropy (SCE)", SKY),
    "BCE": ("binary, 1 negative (BCE)", VERMILION),
    "BCE+": ("binary (BCE+)", VERMILION),
    "gBCE": ("binary, generalized (gBCE)", VERMILION),
}
_SHARING = {
    INDEPENDENT.name: ("each row its own", GREEN),
    "CE-, groups of 32": ("shared by 32 rows", BLUE),
    GROUPED.name: ("shared by 128 rows", BLUE),
    "CE-, groups of 32, rows in order": ("shared by 32 unshuffled", BLUE),
    "CE-, groups of 128, rows in order": ("shared by 128 unshuffled", BLUE),
    "CE-, one draw a batch": ("shared by the whole batch", BLUE),
}
_PAIRS = tuple(itertools.product(BATCHES, LENGTHS))
_OF_BATCH = dict(zip(BATCHES, (SKY, BLUE, BLACK), strict=True))
_NDCG = "NDCG@10 (0 to 1)"


@mpl.rc_context(LOOK)
def figures(rows: list[Row]) -> dict[str, Figure]:
    """By file name: those that ``rows`` suffice for."""
    groups = by_cell(row for row in rows if row["framework"] == "torch")
    datasets = list(dict.fromkeys(data for data, _, _ in groups))
    compared = [data for data in datasets if sum((data, name, "torch") in groups for name in _BY_NAME) > 2]
    drawings: dict[str, tuple[list[str], Callable[[Groups, list[str]], Figure]]] = {
        "study_losses.png": (compared, _losses),
        "study_sharing.png": ([data for data in compared if (data, INDEPENDENT.name, "torch") in groups], _sharing),
        "study_time.png": (
            [data for data in compared if any(cell[0]["step_ms"] for key, cell in groups.items() if key[0] == data)],
            _time,
        ),
        "study_negatives.png": ([data for data in datasets if len(_sweep(groups, data)) > 1], _negatives),
        "study_balance.png": (
            [data for data in BALANCED_SETS if any(_balance_line(groups, data, *pair) for pair in _PAIRS)],
            _balance,
        ),
    }
    return {name: draw(groups, own) for name, (own, draw) in drawings.items() if own}


@mpl.rc_context(LOOK)
def epoch_figures(rows: list[Row]) -> dict[str, Figure]:
    """``study_epochs.png``: of what an epoch of the training commands is made."""
    parts = {
        "training": lambda row: float(row["training_seconds"]) - float(row["saving_seconds"]),
        "checkpoint": lambda row: float(row["saving_seconds"]),
        "validation": lambda row: max(float(row["validation_seconds"]), 0.0),
    }
    seconds = [[part(row) for part in parts.values()] for row in rows]
    others = [100 * (1 - each[0] / sum(each)) for each in seconds]
    figure, (axes,) = picture(
        f"An epoch of the former training loops was {span(others)}% checkpoint and validation",
        f"SASRec of width 128 on {', '.join(sorted({row['dataset'] for row in rows}))}; {rows[0]['gpu']}",
        1.5 + 0.3 * len(rows),
    )
    start = [0.0] * len(rows)
    for name, widths, colour in zip(parts, zip(*seconds, strict=True), (DARK, SKY, PALE), strict=True):
        axes.barh(range(len(rows)), widths, left=start, color=colour, label=name)
        start = [left + width for left, width in zip(start, widths, strict=True)]
    losses = {FULL.name: "every item", "eager CE-": "eager sampled"}
    names = [
        f"{losses.get(row['method'], 'shared negatives')}, {'PyTorch' if row['framework'] == 'torch' else 'JAX'}"
        for row in rows
    ]
    name_bars(axes, names, "seconds of an epoch")
    number_bars(axes, start, [f"{value:.1f}" for value in start])
    legend_below(figure, axes)
    return {"study_epochs.png": figure}


def _losses(groups: Groups, datasets: list[str]) -> Figure:
    """Test NDCG@10 of each loss with its interval; full cross-entropy's mean as a line."""
    return _dots(
        groups,
        datasets,
        "In the same epochs cross-entropies reach more than binary losses",
        _LOSSES,
        lambda cell, _: interval([float(row["test_ndcg@10"]) for row in cell]),
        f"test {_NDCG}",
        FULL.name,
    )


def _sharing(groups: Groups, datasets: list[str]) -> Figure:
    """NDCG@10 of each way to share negatives as a share of that with a row's own."""

    def share(cell: list[Row], data: str) -> Interval:
        own = groups[data, INDEPENDENT.name, "torch"]
        found = interval([float(row["test_ndcg@10"]) for row in own]) if cell is own else relative_difference(cell, own)
        by, shift = (100 / found.mean, 0) if cell is own else (100, 1)
        return Interval(*(by * (value + shift) for value in (found.mean, found.low, found.high)))

    title = "Negatives that 128 shuffled rows share reach about what each row's own reach"
    label = "test NDCG@10, % of that with each row's own"
    return _dots(groups, datasets, title, _SHARING, share, label, INDEPENDENT.name)


def _dots(
    groups: Groups,
    datasets: list[str],
    title: str,
    names: dict[str, tuple[str, str]],
    value: Callable[[list[Row], str], Interval],
    label: str,
    line: str,
) -> Figure:
    """A panel a data set, a dot a method with its interval, a line at the mean of method ``line``."""
    setup = f"{_SETUP}; means and 95% intervals over seeds"
    height, columns = 1.3 + 0.28 * len(names), len(datasets)
    figure, panels = picture(title, setup, height, columns=columns, sharey=True, sharex="%" in label)
    for axes, data in zip(panels, datasets, strict=True):
        for place, (name, (_, colour)) in enumerate(names.items()):
            cell = groups.get((data, name, "torch"))
            if cell:
                found = value(cell, data)
                half = 0.0 if math.isinf(found.high) else found.high - found.mean
                axes.errorbar([found.mean], [place], xerr=[half], fmt="o", color=colour, capsize=3)
                if name == line:
                    axes.axvline(found.mean, color=colour, linestyle=":", linewidth=1)
        name_bars(axes, [shown for shown, _ in names.values()], label)
        axes.set_title(data)
    return figure


def _time(groups: Groups, datasets: list[str]) -> Figure:
    """Validation NDCG@10 against the GPU seconds of training so far; binary losses with their longer runs."""
    lines = {
        FULL.name: ("cross-entropy, every item", BLACK, "-"),
        GROUPED.name: ("cross-entropy, sampled", BLUE, "-"),
        "SCE": ("scalable (SCE)", SKY, "-"),
        longer(_BY_NAME["BCE"]).name: ("binary, 1 negative (BCE)", VERMILION, "-"),
        longer(_BY_NAME["BCE+"]).name: ("binary (BCE+)", VERMILION, "--"),
    }
    title = "Binary losses take several times the training of cross-entropies, and reach less"
    figure, panels = picture(title, f"{_SETUP}; means over seeds", 4.0, columns=len(datasets))
    for axes, data in zip(panels, datasets, strict=True):
        for name, (shown, colour, style) in lines.items():
            cell = groups.get((data, name, "torch"))
            if cell and cell[0]["step_ms"]:
                axes.plot(*_curve(cell), style, color=colour, label=shown)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(title=data, xlabel="seconds of training on the GPU", ylabel=f"validation {_NDCG}")
        axes.set_ylim(bottom=0)
    legend_below(figure, panels[0], 3)
    return figure


def _negatives(groups: Groups, datasets: list[str]) -> Figure:
    """NDCG@10 of shared negatives as a share of full cross-entropy's, against their number."""
    rows = math.ceil(len(datasets) / 3)
    columns = min(len(datasets), 3)
    figure, panels = picture(
        "How many negatives it takes to reach full cross-entropy depends on the data",
        "SASRec of width 128, negatives shared by 128 rows; means and 95% intervals over seeds",
        1.2 + 2.1 * rows,
        rows,
        columns,
        sharex=True,
        sharey=True,
    )
    for axes, data in zip(panels, datasets, strict=False):
        full = groups[data, FULL.name, "torch"]
        found = [(k, relative_difference(cell, full)) for k, cell in _sweep(groups, data)]
        halves = [0.0 if math.isinf(d.high) else 100 * (d.high - d.mean) for _, d in found]
        means = [100 * (1 + d.mean) for _, d in found]
        axes.errorbar([k for k, _ in found], means, yerr=halves, fmt="o-", color=BLUE, capsize=3, label="sampled")
        axes.axhline(100, color=BLACK, linestyle=":", linewidth=1.2, label="every item")
        axes.set_title(data)
        axes.set_xscale("log", base=4)
        axes.set_xticks(NEGATIVES, [f"{k // 1024}k" if k >= 1024 else str(k) for k in NEGATIVES])
        axes.minorticks_off()
        axes.tick_params(labelbottom=True)
    for axes in panels[len(datasets) :]:
        axes.set_visible(False)
    for axes in panels[max(len(datasets) - columns, 0) : len(datasets)]:
        axes.set_xlabel("negatives a row")
    for axes in panels[::columns]:
        axes.set_ylabel("test NDCG@10,\n% of every item's")
    legend_below(figure, panels[0])
    return figure


def _sweep(groups: Groups, data: str) -> list[tuple[int, list[Row]]]:
    """Number of negatives and rows of grouped CE-, where full CE is there to compare with."""
    if (data, FULL.name, "torch") not in groups:
        return []
    numbers = (*NEGATIVES, *sorted(set(MOST_NEGATIVES.values())))
    found = ((k, groups.get((data, grouped(k).name, "torch"))) for k in numbers)
    return [(k, cell) for k, cell in found if cell]


def _balance(groups: Groups, datasets: list[str]) -> Figure:
    """NDCG@10 against the number of negatives for each batch size and length."""
    title = "Histories of 200 items reach more than those of 50, whatever the batch and the negatives"
    figure, panels = picture(title, "SASRec of width 128 to convergence, one seed a point", 3.9, columns=len(datasets))
    for axes, data in zip(panels, datasets, strict=True):
        for batch_size, length in sorted(_PAIRS, key=lambda pair: (pair[0], -pair[1])):
            points = _balance_line(groups, data, batch_size, length)
            style = "-" if length == LENGTHS[-1] else "--"
            label = f"{batch_size} users of {length} items"
            xs, ys = [k for k, _ in points], [value for _, value in points]
            axes.plot(xs, ys, style, marker="o", color=_OF_BATCH[batch_size], label=label)
        axes.set_xscale("log", base=4)
        axes.set_xticks(BALANCED, [f"{k:,}" for k in BALANCED])
        axes.minorticks_off()
        axes.set(title=data, xlabel="negatives a row", ylabel=f"test {_NDCG}")
    legend_below(figure, panels[0], len(BATCHES))
    return figure


def _balance_line(groups: Groups, data: str, batch_size: int, length: int) -> list[tuple[int, float]]:
    """Number of negatives and mean NDCG@10 of the cells of one batch size and length."""
    found = ((k, groups.get((data, balanced(batch_size, k, length).name, "torch"))) for k in BALANCED)
    return [(k, statistics.fmean(float(row["test_ndcg@10"]) for row in cell)) for k, cell in found if cell]


def _curve(cell: list[Row]) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of steps up to each validation, and the mean over seeds of what it found."""
    curves = [[float(value) for value in row["valid_curve"].split()] for row in cell]
    means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
    first = cell[0]
    between = int(first["epochs"]) / len(means) * int(first["steps_per_epoch"]) * float(first["step_ms"]) / 1000
    return [between * (i + 1) for i in range(len(means))], means
