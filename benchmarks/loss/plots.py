"""Images of the results: time and memory against K, and the share of the measured matrix-product rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .provider import PAPER
from .results import ResultsError, Row, best_rows

SWEEP, TARGETS = "sweep-k/", "uniform"

# (colour, line, marker): ours blue, JAX dashed, the paper red, others grey and muted
STYLES = {
    "cce-minus grouped": ("#0b4f9c", "-", "o"),
    "cce-minus independent": ("#4f9be0", "-", "s"),
    "cce-minus all items": ("#0b4f9c", "-", "D"),
    "cce-minus grouped (JAX)": ("#0b4f9c", "--", "o"),
    "cce-minus independent (JAX)": ("#4f9be0", "--", "s"),
    "cce-minus all items (JAX)": ("#0b4f9c", "--", "D"),
    PAPER: ("#c62828", "-", "^"),
    "PyTorch eager": ("#9e9e9e", "-", "v"),
    "torch.compile": ("#616161", "-", "<"),
    "XLA": ("#9e9e9e", "--", "v"),
    "Apple CCE": ("#2e7d32", "-", "P"),
    "Apple CCE, no filter": ("#81c784", "-", "P"),
    "Liger": ("#ef6c00", "-", "X"),
    "torch linear_cross_entropy": ("#8e24aa", "-", "*"),
}
LOOK: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "axes.axisbelow": True, "legend.frameon": False, "axes.titlelocation": "left",
}  # fmt: skip


def draw_all(rows: list[Row], out: Path) -> list[Path]:
    """The images that ``rows`` suffice for; raises ResultsError where they suffice for none."""
    best = [row for row in best_rows(rows).values() if row["targets"] == TARGETS]
    sweep = sorted((row for row in best if row["shape"].startswith(SWEEP)), key=lambda row: int(row["negatives"]))
    named = [row for row in best if "/" not in row["shape"] and row["matmul_fraction"]]
    if not sweep and not named:
        raise ResultsError("no rows with uniform targets to draw")
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with mpl.rc_context(LOOK):
        if sweep:
            made.append(_save(_against_k(sweep, "ms", "milliseconds a step"), out / "loss_time.png"))
            held = [row for row in sweep if row["extra_bytes"] and float(row["extra_bytes"]) > 0]
            if held:
                made.append(
                    _save(
                        _against_k(held, "extra_bytes", "bytes above inputs and the table's gradient"),
                        out / "loss_memory.png",
                    )
                )
        if named:
            made.append(_save(_matmul(named), out / "loss_matmul.png"))
    return made


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)  # no window system, and no state shared with a caller's own figures
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def _providers(rows: list[Row]) -> list[str]:
    present = {row["provider"] for row in rows}
    return [name for name in STYLES if name in present] + sorted(present - set(STYLES))


def _style(provider: str) -> tuple[str, str, str]:
    return STYLES.get(provider, ("#000000", ":", "."))


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _against_k(rows: list[Row], column: str, label: str) -> Figure:
    """One line a provider over the sweep; times come with the two floors."""
    figure, axes = _axes(7.5, 4.5)
    for provider in _providers(rows):
        colour, line, marker = _style(provider)
        points = [(int(row["negatives"]), float(row[column])) for row in rows if row["provider"] == provider]
        x, y = zip(*points, strict=True)
        face = "white" if line == "--" else colour
        axes.plot(
            x, y, line, color=colour, marker=marker, markersize=5, markerfacecolor=face, linewidth=1.6, label=provider
        )
    if column == "ms":
        for name, floor, dots in (("operations", "floor_operations_ms", (1, 2)), ("bytes", "floor_bytes_ms", (4, 2))):
            at = {int(row["negatives"]): float(row[floor]) for row in rows if row[floor]}
            if at:
                axes.plot(
                    list(at), list(at.values()), color="#444444", linewidth=1, dashes=dots, label=f"floor: {name}"
                )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({int(row["negatives"]) for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("negatives a row, K")
    axes.set_ylabel(label)
    first = rows[0]
    axes.set_title(
        f"N={int(first['rows']):,} V={int(first['items']):,} D={first['dim']}, bf16, {first['gpu']}", fontsize=9
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figure


def _matmul(rows: list[Row]) -> Figure:
    """One mark a provider and shape: 8 N K D operations over the time, relative to a large matrix product."""
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = _axes(7.5, 0.8 + 0.5 * len(shapes))
    for provider in _providers(rows):
        colour, line, marker = _style(provider)
        own = [row for row in rows if row["provider"] == provider and row["matmul_fraction"]]
        x = [100 * float(row["matmul_fraction"]) for row in own]
        y = [shapes.index(row["shape"]) for row in own]
        face = "none" if line == "--" else colour
        axes.plot(
            x, y, marker, markersize=7, markerfacecolor=face, markeredgecolor=colour, linestyle="none", label=provider
        )
    labels: dict[str, str] = {}
    for row in rows:
        negatives = "" if int(row["negatives"]) >= int(row["items"]) else f" K={int(row['negatives']):,}"
        labels[row["shape"]] = (
            f"{row['shape']}: N={int(row['rows']):,}{negatives} V={int(row['items']):,} D={row['dim']}"
        )
    axes.set_yticks(range(len(shapes)), [labels[shape] for shape in shapes])
    axes.set_ylim(len(shapes) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    axes.set_xlabel("8 N K D operations over the time of a step, of the measured rate of an 8192³ matrix product")
    axes.set_title(rows[0]["gpu"], fontsize=9)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figure
