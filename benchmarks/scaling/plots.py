"""Pictures of scaling: what a step takes on more GPUs."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from ..pictures import LOOK, OURS, legend_below, name_bars, number_bars, picture, span
from .cases import GOALS, KINDS, PROVIDERS, STRONG, WEAK
from .results import Row, gain

_SETUPS = {
    WEAK: "SASRec, 25M items and 25,600 positions a GPU",
    STRONG: "full cross-entropy, forward and backward, 32,768 rows and a million items in all",
}


@mpl.rc_context(LOOK)
def figures(rows: list[Row]) -> dict[str, Figure]:
    """``scaling_weak.png`` and ``scaling_strong.png``, of which ``rows`` suffice for."""
    own = {kind: [row for row in rows if row["kind"] == kind and gain(row, rows) is not None] for kind in KINDS}
    return {f"scaling_{kind}.png": _draw(kind, found) for kind, found in own.items() if found}


def _draw(kind: str, rows: list[Row]) -> Figure:
    """A bar a framework and number of GPUs, with the time that is aimed at."""
    gains = [gain(row, rows) or 1.0 for row in rows]
    most = max(int(row["gpus"]) for row in rows)
    of_most = [found for row, found in zip(rows, gains, strict=True) if int(row["gpus"]) == most]
    times = "twice" if most == 2 else f"{most} times"
    longer = span([100 / found - 100 for found in of_most])
    title = (
        f"{most} GPUs train {times} the items and positions in a step that takes {longer}% longer"
        if kind == WEAK
        else f"{most} GPUs are {span(of_most, '{:.2f}')} times as fast as one"
    )
    figure, (axes,) = picture(title, f"{_SETUPS[kind]}; {rows[0]['gpu']}", 1.5 + 0.36 * len(rows))
    ms = [float(row["ms"]) for row in rows]
    axes.barh(range(len(rows)), ms, color=[OURS[row["framework"]] for row in rows])
    names = [f"{PROVIDERS[row['framework']]}, {row['gpus']} GPU{'s' * (row['gpus'] != '1')}" for row in rows]
    name_bars(axes, names, "milliseconds a step")
    aims = [
        time * found / GOALS[kind, int(row["gpus"])] if (kind, int(row["gpus"])) in GOALS else None
        for row, time, found in zip(rows, ms, gains, strict=True)
    ]
    number_bars(axes, ms, [_number(kind, row, found) for row, found in zip(rows, gains, strict=True)], aims)
    if any(aims):
        legend_below(figure, axes)
    return figure


def _number(kind: str, row: Row, found: float) -> str:
    if row["gpus"] == "1":
        return f"{float(row['ms']):.1f}"
    what = f"efficiency {found:.0%}" if kind == WEAK else f"{found:.2f} times as fast"
    return f"{float(row['ms']):.1f}, {what}"
