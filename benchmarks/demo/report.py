"""The demonstration's table, its learning curves and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cce_minus.recsys.run.progress import TrainResult
from rich.table import Table

POPULARITY_FACTOR = 2.0
"""Each model's NDCG@10 is at least this many times popularity's."""

MAX_DIFFERENCE = 1e-4
"""The frameworks' losses of one step differ by at most this, relatively."""


@dataclass(frozen=True)
class Entry:
    """A column of the table: a recommender, its test metrics and its titles for the chosen user.

    ``training`` is None for the baseline, which is not trained.
    """

    name: str
    metrics: dict[str, float]
    titles: Sequence[str]
    training: TrainResult | None = None


def results_table(entries: Sequence[Entry], *, history: Sequence[str], held_out: str) -> Table:
    """Returns the table of ``entries``; ``history`` (latest last) and ``held_out`` are the chosen user's titles."""
    table = Table(
        title="SASRec in both frameworks, same initial weights, batches and seeds",
        caption="NDCG@10 and HR@10: each user's last item ranked among all items, seen ones included; weights of the "
        f"epoch with the best validation NDCG@10. One user, who saw last {' - '.join(history)}, and next: "
        f"{held_out}. Recommendations may repeat what the user has seen.",
        caption_justify="left",
    )
    table.add_column("")
    for entry in entries:
        table.add_column(entry.name)
    trainings = [entry.training for entry in entries]
    table.add_row("training loss, last epoch", *(f"{run.losses[-1]:.4f}" if run else "-" for run in trainings))
    table.add_row("best epoch of", *(f"{run.best_epoch + 1} of {len(run.losses)}" if run else "-" for run in trainings))
    for label, name in (("NDCG@10", "ndcg@10"), ("HR@10", "hr@10")):
        table.add_row(label, *(f"{entry.metrics[name]:.4f}" for entry in entries))
    table.add_row("seconds", *(f"{run.seconds:.1f}" if run else "-" for run in trainings), end_section=True)
    for place, titles in enumerate(zip(*(entry.titles for entry in entries), strict=True), start=1):
        table.add_row(f"recommended {place}", *titles)
    return table


def broken_promises(baseline: Entry, models: Sequence[Entry], difference: float) -> list[str]:
    """Returns a sentence for each promise that is not met; a NaN meets none."""
    goal = POPULARITY_FACTOR * baseline.metrics["ndcg@10"]
    broken = [
        f"{model.name}: NDCG@10 is {model.metrics['ndcg@10']:.4f}, below {POPULARITY_FACTOR:g} times popularity's "
        f"({goal:.4f})"
        for model in models
        if not model.metrics["ndcg@10"] >= goal
    ]
    if not difference <= MAX_DIFFERENCE:
        broken.append(f"the losses of one step differ by {difference:.1e} relatively, more than {MAX_DIFFERENCE:.0e}")
    return broken
