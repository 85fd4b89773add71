"""What is wrong with a matplotlib figure that is to be read at the width of a page, in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SHOWN_WIDTH = 830
LEAST_LETTERS = 9  # pixels
MOST_SERIES = 6

UNITS = re.compile(
    r"%|\(0 to 1\)|\b(seconds|milliseconds|MiB|nats|epoch|negatives a row|items in the catalog|steps of the)\b"
)
"""One of them is in the label of every axis that has numbers: a unit, or what is counted."""


def faults(figure: Figure) -> list[str]:
    """Nothing where ``figure`` can be read."""
    FigureCanvasAgg(figure).draw()
    texts = [(text, text.get_window_extent()) for text in _texts(figure)]
    return [*_letters(figure, texts), *_places(figure, texts), *_panels(figure)]


def _letters(figure: Figure, texts: list[tuple[Text, Bbox]]) -> Iterator[str]:
    shown = SHOWN_WIDTH / figure.get_figwidth() / 72  # pixels of a point
    for text, _ in texts:
        letters = float(text.get_fontsize()) * shown
        if letters < LEAST_LETTERS:
            yield f"{text.get_text()!r} has letters of {letters:.1f} pixels"


def _places(figure: Figure, texts: list[tuple[Text, Bbox]]) -> Iterator[str]:
    """What is cut off, and what lies on something else; touching by a pixel is none."""
    for place, (text, box) in enumerate(texts):
        if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1:
            yield f"{text.get_text()!r} is outside of the picture"
        for other, its in texts[:place]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            down = min(box.y1, its.y1) - max(box.y0, its.y0)
            if across > 1 and down > 1:
                yield f"{other.get_text()!r} and {text.get_text()!r} overlap"


def _panels(figure: Figure) -> Iterator[str]:
    for axes in figure.axes:
        if axes.get_visible():
            found = _series(axes)
            if len(found) > MOST_SERIES:
                yield f"a panel has {len(found)} series"
            for axis, shared in (("x", axes.get_shared_x_axes()), ("y", axes.get_shared_y_axes())):
                panels = shared.get_siblings(axes)
                labels = [getattr(each, f"get_{axis}label")() for each in panels]
                ticks = [tick.get_text() for each in panels for tick in getattr(each, f"get_{axis}ticklabels")()]
                names = any(re.search("[A-Za-z]{2}", tick) for tick in ticks)  # of bars: they need no unit
                if not names and not any(UNITS.search(label) for label in labels):
                    yield f"the {axis} axis has no unit: {labels}"


def _series(axes: Axes) -> set[tuple[object, ...]]:
    """Ways in which lines look, and colours of bars; marks upon lines of their colour are none of their own."""
    caps = [
        cap for drawn in axes.containers if isinstance(drawn, ErrorbarContainer) for cap in drawn.lines[1]
    ]  # an error bar belongs to its line
    lines = [line for line in axes.lines if line not in caps and np.size(line.get_xdata())]
    looks = {(line.get_color(), line.get_linestyle()) for line in lines if line.get_linestyle() != "None"}
    drawn = {colour for colour, _ in looks}
    marks = {(line.get_color(), line.get_marker()) for line in lines if line.get_color() not in drawn}
    return {*looks, *marks, *((patch.get_facecolor(),) for patch in axes.patches)}


def _texts(figure: Figure) -> Iterator[Text]:
    """All that is drawn."""
    hidden = {text for axes in figure.axes if not axes.get_visible() for text in axes.findobj(Text)}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            yield text
