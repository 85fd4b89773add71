"""The results as a Markdown table: what a warm start reaches, with what was aimed at."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..runs.table import NAMES, machine
from ..study.intervals import Interval, interval
from .cells import BASE, FULL, PART_OF_STEPS, WARM
from .results import ResultsError, Row, Runs, by_chain

LEAST_QUALITY = 0.99
"""Of the full retraining's test NDCG@10."""

CONFIDENCE = 0.9

_HEAD = (
    "data", "new days", "", "new events", "active users", "seeds", "NDCG@10, full", "warm", "warm / full",
    "HR@10, warm / full", "active users', warm / full", "yesterday's model / full", "most steps, warm / full",
    "full's validation reached", "after steps, warm / full",
)  # fmt: skip


def markdown(rows: Iterable[Row]) -> str:
    """A line for each log's days, one for all of them, and the machines under the table."""
    rows = list(rows)
    days: dict[tuple[str, str], dict[str, list[Runs]]] = defaultdict(lambda: defaultdict(list))
    for (dataset, first, length, framework, _), runs in by_chain(rows).items():
        days[dataset, framework][span(first, length)].append(runs)
    lines = [f"| {' | '.join(_HEAD)} |", f"|---|---|---|{'---:|' * (len(_HEAD) - 3)}"]
    for (dataset, framework), chains in days.items():
        every = [runs for some in chains.values() for runs in some]
        if len({runs[WARM]["digest"] for runs in every}) > 1:
            raise ResultsError(f"{dataset}, {framework}: expected rows of the same options, got several digests")
        lines += [_line(dataset, span, framework, some) for span, some in chains.items()]
        if len(chains) > 1:
            lines.append(_line(dataset, "all", framework, every))
    return "\n\n".join(["\n".join(lines), *dict.fromkeys(map(machine, rows))])


def ratios(chains: Sequence[Runs], column: str, kind: str = WARM) -> list[float]:
    """``column`` of the runs of a ``kind`` over that of the full retraining of the same day and seed; those that it has
    at 0 are left out."""
    pairs = [(float(runs[kind][column] or 0), float(runs[FULL][column] or 0)) for runs in chains]
    return [one / other for one, other in pairs if other]


def steps_share(runs: Runs) -> float:
    """All steps of the warm start over those of the full retraining to the end of its best epoch."""
    return int(runs[WARM]["steps"]) / int(runs[FULL]["steps_to_best"])


def share_to_reach(runs: Runs) -> float | None:
    """Steps of the warm start to its first validation that is no worse than the full retraining's best, over this
    one's steps to there; None where there is none."""
    aim = float(runs[FULL]["valid_ndcg@10"])
    for epoch, value in enumerate(curve(runs[WARM]), start=1):
        if value >= round(aim, 5):
            return epoch * int(runs[WARM]["steps_per_epoch"]) / int(runs[FULL]["steps_to_best"])
    return None


def curve(row: Row) -> list[float]:
    """The validation NDCG@10 after each epoch."""
    return [float(value) for value in row["valid_curve"].split()]


def span(first: str, length: str) -> str:
    """A day for a reader, from its columns."""
    return first if length == "1" else f"{first}, {length} days"


def _line(dataset: str, span: str, framework: str, chains: list[Runs]) -> str:
    full, warm = (statistics.fmean(float(runs[kind]["test_ndcg@10"]) for runs in chains) for kind in (FULL, WARM))
    new = {int(runs[FULL]["events"]) - int(runs[BASE]["events"]) for runs in chains}
    active = {int(runs[FULL]["active_users"]) for runs in chains}
    quality = interval(ratios(chains, "test_ndcg@10"), CONFIDENCE)
    steps = max(map(steps_share, chains))
    reached = [share for runs in chains if (share := share_to_reach(runs)) is not None]
    fields = (
        dataset, span, NAMES[framework], _range(new), _range(active), str(len({runs[WARM]["seed"] for runs in chains})),
        f"{full:.4f}", f"{warm:.4f}",
        _share(quality) + (", missed" if quality.mean < LEAST_QUALITY else ""),
        *(_share(interval(ratios(chains, name), CONFIDENCE)) for name in ("test_hr@10", "active_ndcg@10")),
        f"{statistics.fmean(ratios(chains, 'test_ndcg@10', BASE)):.1%}",
        f"{steps:.3f}" + (", missed" if steps * PART_OF_STEPS > 1 else ""),
        f"{len(reached)} of {len(chains)}",
        f"{statistics.median(reached):.3f}" if reached else "",
    )  # fmt: skip
    return f"| {' | '.join(fields)} |"


def _range(values: set[int]) -> str:
    return f"{min(values)}" if len(values) == 1 else f"{min(values)} to {max(values)}"


def _share(found: Interval) -> str:
    bounds = "" if math.isinf(found.low) else f" ({found.low:.1%} to {found.high:.1%})"
    return f"{found.mean:.1%}{bounds}"
