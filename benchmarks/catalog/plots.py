"""The picture of steps on catalogs: what a step costs as the catalog grows."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..pictures import LOOK, OURS, PLAIN, count, label_ends, picture, span
from .cases import DENSE, JAX, SPARSE, TORCH
from .results import Row

_LINES = {
    TORCH: ("CCE-minus, PyTorch", {"color": OURS[TORCH], "marker": "o"}),
    # hollow and larger, as it lies on PyTorch's
    JAX: ("CCE-minus, JAX", {"color": OURS[JAX], "marker": "o", "markersize": 9, "markerfacecolor": "none"}),
    DENSE: ("whole table,\ntorch.optim.AdamW", {"color": PLAIN, "marker": "v"}),
    SPARSE: ("sparse gradients,\ntorch.optim.SparseAdam", {"color": PLAIN, "marker": "s", "linestyle": "--"}),
}
_WIDTH = "64"


@mpl.rc_context(LOOK)
def figures(rows: list[Row]) -> dict[str, Figure]:
    """``catalog_step.png``: milliseconds of a step over the number of items, tables of one width."""
    rows = [row for row in rows if row["provider"] in _LINES and row["dim"] == _WIDTH]
    ours = [row for row in rows if row["provider"] in OURS]
    title = "A training step on growing catalogs"
    if ours:
        ends = (f(int(row["items"]) for row in ours) for f in (min, max))
        took = span([float(row["ms"]) for row in ours], "{:.2g}")
        title = f"A training step takes {took} ms with {' as with '.join(map(count, ends))} items"
    halved = [count(int(row["items"])) for row in rows if row["dtype"] == "bfloat16"]
    dtype = f"float32, {halved[0]} items in bfloat16" if halved else "float32"
    setup = f"25,600 rows, 1,024 negatives, width {_WIDTH}, {dtype}, without a model; {rows[0]['gpu']}"
    figure, (axes,) = picture(title, setup, 3.8)
    lines: list[Line2D] = []
    for provider, (name, style) in _LINES.items():
        own = [row for row in rows if row["provider"] == provider]
        if own:
            items, ms = ([float(row[column]) for row in own] for column in ("items", "ms"))
            lines += axes.plot(items, ms, label=name, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.1, max(10.0, *(2 * float(row["ms"]) for row in rows)))  # a flat line looks flat
    ticks = sorted({int(row["items"]) for row in rows})
    axes.set_xticks(ticks, list(map(count, ticks)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("items in the catalog")
    axes.set_ylabel("milliseconds a step")
    label_ends(axes, lines)
    return {"catalog_step.png": figure}
