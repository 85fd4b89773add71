"""The image of steps on catalogs: what a step costs as the catalog grows."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..study.plots import LOOK
from .cases import DENSE, JAX, SPARSE, TORCH
from .results import Row

_LINES = {
    TORCH: ("CCE-minus, PyTorch", "#0b4f9c"),
    JAX: ("CCE-minus, JAX", "#4f9be0"),
    DENSE: ("whole table, AdamW", "#ef6c00"),
    SPARSE: ("sparse gradients, SparseAdam", "#9e9e9e"),
}
_WIDTH = "64"


def draw(rows: list[Row], path: Path) -> Path:
    """Milliseconds of a step over the number of items, tables of one width."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        axes, highest = figure.subplots(), [0.0]
        for provider, (name, colour) in _LINES.items():
            own = [row for row in rows if row["provider"] == provider and row["dim"] == _WIDTH]
            if own:
                items, ms = ([float(row[column]) for row in own] for column in ("items", "ms"))
                highest.append(2 * max(ms))
                axes.plot(items, ms, marker="o", color=colour, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(0.1, max([10.0, *highest]))  # a flat line looks flat
        axes.set_xlabel("items of width 64 (400M and more in bfloat16)")
        axes.set_ylabel("milliseconds of a step")
        axes.set_title(f"a whole training step, 25,600 rows, 1024 negatives, {rows[0]['gpu']}", fontsize=9)
        axes.legend(fontsize=8)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130)
    return path
