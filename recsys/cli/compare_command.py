"""The command compare of both frameworks' command lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..run.comparison import Comparison, compare_runs

_WIDTH = 80
_COLUMNS = 5
"""Columns of runs, and popularity, that a table of this width holds."""

Row = tuple[str, Sequence[str]]


def add_compare(app: typer.Typer, framework: str, guarded: Callable[[Callable[[], object]], None]) -> None:
    """Adds the command to ``app``; ``guarded`` runs its work and turns its typed errors into one line."""

    @app.command("compare", help=_HELP.format(framework=framework))
    def compare(
        runs: Annotated[
            list[Path], typer.Argument(metavar="RUN", help="Folders of training runs, of either framework.")
        ],
        output: Annotated[
            Path | None, typer.Option(help="Draw the learning curves of up to six runs: .png, .svg or .pdf.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    ) -> None:
        def work() -> None:
            comparison = compare_runs(runs)
            if output is not None:
                comparison.plot(output)
            typer.echo(json.dumps(comparison.record()) if as_json else _report(comparison))

        guarded(work)


def _report(comparison: Comparison) -> str:
    """What a terminal of `_WIDTH` columns shows: the runs by number, and tables of a few of them side by side."""
    runs, popularity = comparison.runs, comparison.popularity
    heads = [str(number) for number in range(1, len(runs) + 1)]
    rows: list[Row] = [(name, [_metric(run.test.get(name)) for run in runs]) for name in comparison.metrics]
    if popularity is not None:
        heads.append("popularity")
        rows = [(name, [*values, _metric(popularity.get(name))]) for name, values in rows]
    else:
        names = dict.fromkeys(name for run in runs for name in run.popularity)
        rows += [(f"popularity {name}", [_metric(run.popularity.get(name)) for run in runs]) for name in names]
    rows.append(("best epoch", ["-" if run.best_epoch is None else str(run.best_epoch) for run in runs]))
    rows.append(("seconds", [f"{run.seconds:.1f}" for run in runs]))
    rows.append(("framework", [run.framework for run in runs]))
    options = comparison.differing.items()
    rows += [(name, ["-" if value is None else str(value) for value in values]) for name, values in options]
    lines = [f"{number:>3}  {run.name}" for number, run in enumerate(runs, start=1)]
    for first in range(0, len(heads), _COLUMNS):
        some = slice(first, first + _COLUMNS)
        lines += ["", *_table(heads[some], [(name, values[some]) for name, values in rows])]
    return "\n".join(lines)


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(heads: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    from rich.console import Console  # here, because importing it takes long and other commands do without
    from rich.table import Table

    table = Table("", box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for name, values in rows:
        table.add_row(name, *values)
    text = io.StringIO()
    Console(file=text, width=_WIDTH, color_system=None, markup=False, highlight=False).print(table)
    return (line.rstrip() for line in text.getvalue().splitlines())


_HELP = """Compare runs: test metrics, best epoch, seconds, and the options in which they differ.

cce-minus-{framework} compare runs/a runs/b --output compare.png
"""
