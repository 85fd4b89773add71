"""Images of scaling: what a step takes on more GPUs, relative to one."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..study.plots import LOOK
from .cases import GOALS, KINDS, PROVIDERS, STRONG, WEAK
from .results import Row, gain

_COLOURS = {"torch": "#0b4f9c", "jax": "#ef6c00"}
_TITLES = {
    WEAK: "a training step, 25M items and 25,600 positions a GPU",
    STRONG: "full cross-entropy over a million items, 32,768 rows",
}


def draw_all(rows: list[Row], out: Path) -> list[Path]:
    """``scaling_weak.png`` and ``scaling_strong.png``, of which ``rows`` suffice for."""
    out.mkdir(parents=True, exist_ok=True)
    own = {kind: [row for row in rows if row["kind"] == kind and gain(row, rows) is not None] for kind in KINDS}
    return [_draw(kind, found, out / f"scaling_{kind}.png") for kind, found in own.items() if found]


def _draw(kind: str, rows: list[Row], path: Path) -> Path:
    """Time of a step over the number of GPUs, of one GPU's, with what is hoped for at best."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(5.5, 3.4), layout="constrained")
        axes, counts = figure.subplots(), sorted({int(row["gpus"]) for row in rows})
        highest = 1.0
        for provider, name in PROVIDERS.items():
            line = [(int(row["gpus"]), 1 / (gain(row, rows) or 1)) for row in rows if row["framework"] == provider]
            if line:
                highest = max(highest, *(time for _, time in line))
                axes.plot(*zip(*line, strict=True), marker="o", color=_COLOURS[provider], label=name)
        axes.plot(counts, [1 if kind == WEAK else 1 / count for count in counts], ":", color="#9e9e9e", label="ideal")
        goals = [(count, _time(kind, count)) for count in counts if (kind, count) in GOALS]
        if goals:
            axes.plot(*zip(*goals, strict=True), "_", color="#000000", markersize=14, label="goal, at most")
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 1.15 * highest)
        axes.set_xlabel("GPUs of one host")
        axes.set_ylabel("time of a step, that of one GPU = 1")
        axes.set_title(f"{_TITLES[kind]}, {rows[0]['gpu']}", fontsize=9)
        axes.legend(fontsize=8)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130)
    return path


def _time(kind: str, gpus: int) -> float:
    return 1 / GOALS[kind, gpus]
