"""Pictures of the loss: time and memory against the number of negatives, and shares of the GPU's matrix rate."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ..pictures import (
    BLUE,
    DARK,
    GREEN,
    LOOK,
    PLAIN,
    PURPLE,
    SKY,
    VERMILION,
    count,
    label_end,
    label_ends,
    legend_below,
    name_bars,
    number_bars,
    picture,
    span,
)
from .provider import PAPER
from .results import ResultsError, Row, best_rows
from .shapes import GROUP

SWEEP, TARGETS = "sweep-k/", "uniform"
_SHARED, _OWN, _PLAIN_TORCH, _PLAIN_JAX = "cce-minus grouped", "cce-minus independent", "PyTorch eager", "XLA"
_TOLD = 1024  # negatives of which a title tells

# provider: name, colour, line, marker. JAX's lines would lie on PyTorch's: the CSV has them
_SAMPLED = {
    _SHARED: (f"CCE-minus, negatives\nshared by {GROUP} rows", BLUE, "-", "o"),
    _OWN: ("CCE-minus, each row\nits own negatives", GREEN, "-", "s"),
    PAPER: ("the paper's kernel", VERMILION, "-", "^"),
    _PLAIN_TORCH: ("plain PyTorch", PLAIN, "-", "v"),
    _PLAIN_JAX: ("plain PyTorch, JAX (dashed)", PLAIN, "--", "v"),
}
_FULL = {
    "cce-minus all items": ("CCE-minus", BLUE),
    "Apple CCE": ("Apple's cut cross-entropy", SKY),
    "Apple CCE, no filter": ("Apple's, without its gradient filter", PURPLE),
    "Liger": ("Liger", VERMILION),
}


@mpl.rc_context(LOOK)
def figures(rows: list[Row]) -> dict[str, Figure]:
    """By file name, those that ``rows`` suffice for; raises ResultsError where they suffice for none."""
    best = [row for row in best_rows(rows).values() if row["targets"] == TARGETS]
    sweep = [row for row in best if row["shape"].startswith(SWEEP) and row["provider"] in _SAMPLED]
    sweep.sort(key=lambda row: int(row["negatives"]))
    held = [row for row in sweep if row["extra_bytes"] and float(row["extra_bytes"]) > 0]
    named = [row for row in best if "/" not in row["shape"] and row["matmul_fraction"]]
    full = [row for row in named if row["provider"] in _FULL]
    sampled = [row for row in named if row["provider"] in _SAMPLED]
    drawings: dict[str, tuple[list[Row], Callable[[list[Row]], Figure]]] = {
        "loss_time.png": (sweep, _time),
        "loss_memory.png": (held, _memory),
        "loss_matmul.png": (sampled, _matmul),
        "loss_every_item.png": (full, _every_item),
    }
    if not any(own for own, _ in drawings.values()):
        raise ResultsError("no rows with uniform targets to draw")
    return {name: draw(own) for name, (own, draw) in drawings.items() if own}


def _time(rows: list[Row]) -> Figure:
    """With the floor that the GPU sets, of operations or of bytes."""
    title = "Time of a step of the loss"
    ms = {(row["provider"], int(row["negatives"])): float(row["ms"]) for row in rows}
    if (_SHARED, _TOLD) in ms and (PAPER, _TOLD) in ms:
        times = ms[PAPER, _TOLD] / ms[_SHARED, _TOLD]
        title = f"With {_TOLD:,} shared negatives the loss is {times:.0f} times as fast as the paper's kernel"
    figure, axes = _against_k(rows, title)
    lines = _lines(axes, rows, lambda row: float(row["ms"]))
    floors = {
        int(row["negatives"]): max(float(row["floor_operations_ms"]), float(row["floor_bytes_ms"]))
        for row in rows
        if row["floor_operations_ms"] and row["floor_bytes_ms"]
    }
    if floors:
        lines += axes.plot(list(floors), list(floors.values()), ":", color=DARK, label="the least that\nthe GPU allows")
    axes.set_ylabel("milliseconds a step, forward and backward")
    label_ends(axes, lines)
    return figure


def _memory(rows: list[Row]) -> Figure:
    """The independent rows' line would lie on that of shared ones."""
    rows = [row for row in rows if row["provider"] != _OWN]
    ours = [float(row["extra_bytes"]) / 2**20 for row in rows if row["provider"] == _SHARED]
    figure, axes = _against_k(
        rows, f"The loss takes {span(ours)} MiB, however many negatives a row has" if ours else "Memory of the loss"
    )
    lines = _lines(axes, rows, lambda row: float(row["extra_bytes"]) / 2**20)
    axes.set_ylabel("MiB above inputs and the table's gradient")
    label_ends(axes, lines)
    return figure


def _against_k(rows: list[Row], title: str) -> tuple[Figure, Axes]:
    first = rows[0]
    setup = f"{int(first['rows']):,} rows, {count(int(first['items']))} items, width {first['dim']}, bfloat16"
    figure, (axes,) = picture(title, f"{setup}; {first['gpu']}", 4.4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({int(row["negatives"]) for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.minorticks_off()
    axes.set_xlabel("negatives a row")
    return figure, axes


def _lines(axes: Axes, rows: list[Row], value: Callable[[Row], float]) -> list[Line2D]:
    """A line a provider over the numbers of negatives; returns those that are yet to label."""
    found: list[Line2D] = []
    for provider, (name, colour, line, marker) in _SAMPLED.items():
        points = [(int(row["negatives"]), value(row)) for row in rows if row["provider"] == provider]
        if points:
            face = "white" if line == "--" else colour
            x, y = zip(*points, strict=True)
            found += axes.plot(x, y, line, color=colour, marker=marker, markerfacecolor=face, label=name)
    plain = [line for line in found if line.get_color() == PLAIN]
    for line in plain[-1:]:  # both rise to where they end: there is room above them
        label_end(axes, line, (6, 7), ha="right", va="bottom")
    axes.margins(y=0.12)
    return [line for line in found if line not in plain]


def _share(row: Row) -> float:
    return 100 * float(row["matmul_fraction"])


_SHARE = "% of the rate of a large matrix product on the same GPU"


def _matmul(rows: list[Row]) -> Figure:
    """A mark a provider and shape: operations over time, relative to a large matrix product."""
    rows = [row for row in rows if row["provider"] != _PLAIN_JAX]
    shapes = {row["shape"]: row for row in rows}
    ours = [_share(row) for row in rows if row["provider"] == _SHARED]
    title = f"With shared negatives the loss reaches {span(ours)}% of the GPU's matrix rate" if ours else "Matrix rate"
    figure, (axes,) = picture(title, _setup(rows), 1.9 + 0.36 * len(shapes))
    for provider, (name, colour, _, marker) in _SAMPLED.items():
        own = [row for row in rows if row["provider"] == provider]
        if own:
            places = [list(shapes).index(row["shape"]) for row in own]
            axes.plot(
                [_share(row) for row in own], places, marker, color=colour, markersize=8, label=name.replace("\n", " ")
            )
    name_bars(axes, [f"{_sizes(row)}, {int(row['negatives']):,} negatives" for row in shapes.values()], _SHARE)
    axes.grid(axis="y", visible=True)
    axes.set_xscale("log")
    axes.set_xlim(right=100)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    legend_below(figure, axes, 2)
    return figure


def _setup(rows: list[Row]) -> str:
    return f"a step, forward and backward, bfloat16; {rows[0]['gpu']}"


def _sizes(row: Row) -> str:
    return f"{int(row['rows']):,} rows, {count(int(row['items']))} items, width {row['dim']}"


def _every_item(rows: list[Row]) -> Figure:
    """A panel a shape, a bar a provider."""
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    ours = [_share(row) for row in rows if row["provider"] in list(_FULL)[:1]]
    title = "Cross-entropy over every item"
    title += f" runs at {span(ours)}% of the GPU's matrix rate" if ours else ""
    own = {(row["shape"], row["provider"]): row for row in rows}
    bars = [[own[shape, name] for name in _FULL if (shape, name) in own] for shape in shapes]
    height = 1.1 + 0.35 * len(shapes) + 0.32 * len(rows)
    figure, panels = picture(
        title, _setup(rows), height, rows=len(shapes), sharex=True, height_ratios=list(map(len, bars))
    )
    for axes, shown in zip(panels, bars, strict=True):
        shares = [_share(row) for row in shown]
        axes.barh(range(len(shown)), shares, color=[_FULL[row["provider"]][1] for row in shown])
        name_bars(axes, [_FULL[row["provider"]][0] for row in shown], _SHARE if shown is bars[-1] else "")
        number_bars(axes, shares, [f"{_share(row):.1f}%, {float(row['ms']):.1f} ms" for row in shown])
        axes.set_title(_sizes(shown[0]))
    panels[0].set_xlim(0, 1.25 * max(map(_share, rows)))
    return figure
