"""How pictures of results look: their width, letters and colours, titles, labels beside lines, bars, and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

SHOWN_WIDTH = 830
"""Pixels that a picture has on a page, whatever it has in its file."""

WIDTH = SHOWN_WIDTH / 100
"""Inches: one is 100 of the page's pixels, so that letters of 9 points have 12 or 13 of them."""

_HEAD = 0.56  # inches for the title and the line below it
_DPI = 160

# Okabe and Ito's colours, which colour-blind people tell apart; a thing has one in all pictures
BLACK, BLUE, ORANGE, GREEN = "#000000", "#0072B2", "#E69F00", "#009E73"
VERMILION, PURPLE, SKY, GREY = "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F"
PALE, DARK = "#CCCCCC", "#4D4D4D"  # with SKY: parts of a time
OURS = {"torch": BLUE, "jax": ORANGE}
PLAIN = GREY  # what frameworks do without this project

LOOK: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "axes.axisbelow": True, "legend.frameon": False, "axes.titlelocation": "left", "axes.titlesize": 9,
    "legend.fontsize": 9, "lines.linewidth": 1.6, "lines.markersize": 5,
}  # fmt: skip
"""Style of `matplotlib.rc_context`, which decorates the functions that draw."""

AIM = "aim, at most"


def picture(
    title: str, setup: str, height: float, rows: int = 1, columns: int = 1, **axes: Any
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, of ``height`` inches, with ``title``, its message, and ``setup``, what was measured."""
    head = _HEAD / height
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - head)))
    figure.text(0.008, 1 - 0.16 * head, title, va="top", weight="bold", size=10.5)
    figure.text(0.008, 1 - 0.6 * head, setup, va="top", color=DARK)
    panels = figure.subplots(rows, columns, squeeze=False, **axes)
    return figure, list(np.ravel(panels))


def save_all(figures: Mapping[str, Figure], out: Path) -> list[Path]:
    """Writes each figure below ``out`` under its name, and returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        FigureCanvasAgg(figure)  # no window system, and no state shared with a caller's own figures
        figure.savefig(out / name, dpi=_DPI, metadata={"Title": figure.texts[0].get_text()})
    return [out / name for name in figures]


def label_end(axes: Axes, line: Line2D, offset: tuple[float, float], **alignment: Any) -> Annotation:
    """Writes a line's label so many points from its last point, in its colour, as dark as letters need it on white."""
    at = float(np.asarray(line.get_xdata())[-1]), float(np.asarray(line.get_ydata())[-1])
    colour = [0.75 * part for part in to_rgb(line.get_color())]
    return axes.annotate(str(line.get_label()), at, offset, textcoords="offset points", color=colour, **alignment)


def label_ends(axes: Axes, lines: Iterable[Line2D]) -> None:
    """Writes each line's label beside its last point, in its colour, as far up or down as others are in the way."""
    labels = [label_end(axes, line, (7, 0), va="center") for line in lines]
    figure = _laid_out(axes)
    boxes = [label.get_window_extent() for label in labels]
    middles = [box.y0 + box.height / 2 for box in boxes]
    for _ in range(100):
        for low, high in sorted(
            ((i, j) for i in range(len(boxes)) for j in range(len(boxes)) if i != j and middles[i] <= middles[j]),
            key=lambda pair: (middles[pair[0]], pair),
        ):
            least = 0.55 * (boxes[low].height + boxes[high].height)
            short = least - (middles[high] - middles[low])
            if short > 0 and boxes[low].x0 < boxes[high].x1 and boxes[high].x0 < boxes[low].x1:
                middles[low] -= short / 2
                middles[high] += short / 2
    for label, box, middle in zip(labels, boxes, middles, strict=True):
        label.set_position((7, (middle - box.y0 - box.height / 2) * 72 / figure.dpi))


def _laid_out(axes: Axes) -> Figure:
    """The figure, whose places and sizes are then known."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return figure


def name_bars(axes: Axes, names: Sequence[str], unit: str) -> None:
    """Makes room for a bar at each of ``names``, from the top to the bottom, whose length has a ``unit``."""
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(names)), list(names))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)


def number_bars(
    axes: Axes, values: Sequence[float], texts: Sequence[str], aims: Sequence[float | None] | None = None
) -> None:
    """Writes ``texts`` behind bars that end at ``values``, with a mark of what each should stay below, if any. Where
    the two would meet, the text stands behind the mark."""
    marks = list(aims or [None] * len(values))
    limit = 1.05 * max(*values, *(mark or 0.0 for mark in marks), 0.0)
    axes.set_xlim(0, 1.1 * limit)  # room for the texts
    for bar, (value, text, mark) in enumerate(zip(values, texts, marks, strict=True)):
        if mark is not None:
            known = AIM in axes.get_legend_handles_labels()[1]
            axes.plot([mark] * 2, [bar - 0.4, bar + 0.4], color=BLACK, linewidth=2, label=None if known else AIM)
        written = axes.annotate(text, (value, bar), (4, 0), textcoords="offset points", va="center")
        if mark is not None:
            _laid_out(axes)
            box, across = written.get_window_extent(), axes.transData.transform((mark, bar))[0]
            if box.x0 - box.height / 2 < across < box.x1 + box.height / 2:
                written.xy = max(value, mark), bar


def legend_below(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend for all panels, of the labels in ``axes``."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def count(number: float) -> str:
    """A round number as people say it: 512, 136k, 25M."""
    for size, name in ((1e6, "M"), (1e3, "k")):
        if number >= size and number % size == 0:
            return f"{number / size:g}{name}"
    return f"{number:g}"


def span(values: Sequence[float], form: str = "{:.0f}") -> str:
    """The least and the largest of ``values``; one number where they are written alike."""
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"
