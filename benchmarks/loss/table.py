"""The results as a Markdown table."""

from __future__ import annotations

from .provider import PAPER
from .results import Row, best_rows

HEADER = (
    "| shape | targets | provider | graph ms | eager ms | chained ms | times the paper's speed | extra MiB | bytes a pair | of matmul |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
)


def markdown(rows: list[Row]) -> str:
    """One line for each shape, targets and provider, in the file's order, with the machines under it."""
    times: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        times.setdefault((row["shape"], row["targets"], row["provider"]), {})[row["timing"]] = row
    best = best_rows(rows)
    lines = [*HEADER]
    for (shape, targets, provider), timings in times.items():
        stands = best.get((shape, targets, provider))
        if stands is None:
            continue
        paper = best.get((shape, targets, PAPER))
        chained = next((timings[t] for t in ("jit chained", "graph chained", "eager chained") if t in timings), None)
        sampled = int(stands["negatives"]) < int(stands["items"])
        size = (
            f"{shape}: N={stands['rows']}{' K=' + stands['negatives'] if sampled else ''} V={stands['items']} D={stands['dim']}"
        )
        cells = [
            size, targets, provider, _ms(timings.get("graph")), _ms(timings.get("eager")), _ms(chained),
            f"{float(paper['ms']) / float(stands['ms']):.1f}" if paper else "",
            f"{float(stands['extra_bytes']) / 2**20:.1f}" if stands["extra_bytes"] else "",
            f"{float(stands['bytes_per_pair']):.2g}" if stands["bytes_per_pair"] else "",
            f"{100 * float(stands['matmul_fraction']):.2g}%" if stands["matmul_fraction"] else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    machines = dict.fromkeys(
        f"{r['gpu']}, torch {r['torch']}, triton {r['triton']}, jax {r['jax']}, commit {r['commit']}" for r in rows
    )
    return "\n".join([*lines, "", *(f"{machine}, bf16." for machine in machines)])


def _ms(row: Row | None) -> str:
    return "" if row is None else f"{float(row['ms']):.3g}"
