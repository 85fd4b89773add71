"""The results as Markdown tables."""

from __future__ import annotations

from .provider import JAX, PAPER, UNIFORM
from .results import Row, best_rows
from .shapes import SHAPES

HEADER = (
    "| shape | targets | provider | graph ms | eager ms | chained ms | times the paper's speed | extra MiB | bytes a "
    "pair | of matmul |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
)
LOSSES_HEADER = (
    "| shape | targets | provider | graph ms | eager ms | chained ms | times uniform's time | extra MiB | bytes a "
    "pair |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|",
)


def markdown(rows: list[Row]) -> str:
    """One line for each shape, targets and provider, in the file's order, losses in a table of their own; the machines
    under them."""
    times: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        times.setdefault((row["shape"], row["targets"], row["provider"]), {})[row["timing"]] = row
    best = best_rows(rows)
    lines, losses = [], []
    for key, timings in times.items():
        if key not in best:
            continue
        of_losses = key[0] in SHAPES and SHAPES[key[0]].losses
        cells = [*_times(best[key], timings), _related(key, best, of_losses), *_memory(best[key])]
        if not of_losses:
            cells.append(_percent(best[key]["matmul_fraction"]))
        (losses if of_losses else lines).append("| " + " | ".join(cells) + " |")
    tables = [
        line for header, found in ((HEADER, lines), (LOSSES_HEADER, losses)) if found for line in (*header, *found, "")
    ]
    machines = dict.fromkeys(
        f"{r['gpu']}, torch {r['torch']}, triton {r['triton']}, jax {r['jax']}, commit {r['commit']}" for r in rows
    )
    return "\n".join([*tables, *(f"{machine}, bf16." for machine in machines)])


def _times(row: Row, timings: dict[str, Row]) -> list[str]:
    """Shape, targets, provider and milliseconds."""
    chained = next((timings[t] for t in ("jit chained", "graph chained", "eager chained") if t in timings), None)
    negatives = "" if int(row["negatives"]) >= int(row["items"]) else f" K={row['negatives']}"
    size = f"{row['shape']}: N={row['rows']}{negatives} V={row['items']} D={row['dim']}"
    return [size, row["targets"], row["provider"], _ms(timings.get("graph")), _ms(timings.get("eager")), _ms(chained)]


def _related(key: tuple[str, str, str], best: dict[tuple[str, str, str], Row], of_losses: bool) -> str:
    """The speed over the paper's, or the time over that of uniform negatives in the same framework."""
    shape, targets, provider = key
    ms = float(best[key]["ms"])
    if of_losses:
        uniform = best.get((shape, targets, UNIFORM + JAX if provider.endswith(JAX) else UNIFORM))
        return f"{ms / float(uniform['ms']):.2f}" if uniform else ""
    paper = best.get((shape, targets, PAPER))
    return f"{float(paper['ms']) / ms:.1f}" if paper else ""


def _memory(row: Row) -> list[str]:
    return [
        f"{float(row['extra_bytes']) / 2**20:.1f}" if row["extra_bytes"] else "",
        f"{float(row['bytes_per_pair']):.2g}" if row["bytes_per_pair"] else "",
    ]


def _percent(fraction: str) -> str:
    return f"{100 * float(fraction):.2g}%" if fraction else ""


def _ms(row: Row | None) -> str:
    return "" if row is None else f"{float(row['ms']):.3g}"
