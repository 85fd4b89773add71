"""The commands evaluate and recommend of both frameworks' command lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..protocol.segments import METRICS
from ..serving.measured import BASELINES, BY, evaluate_run, require_measurable, with_given
from ..serving.served_run import Load, ServedRun
from .recommend_command import add_recommend
from .serving_options import Data, Device, Run


def add_serving(app: typer.Typer, framework: str, load: Load, guarded: Callable[[Callable[[], object]], None]) -> None:
    """Adds ``evaluate`` and ``recommend`` to ``app``. ``load`` gives the framework's `ServedModel`; ``guarded`` runs a
    command's work and turns its typed errors into one line."""
    default = Path(f"runs/{framework}")

    @app.command("evaluate", help="Measure a trained model on its data, over the full catalog.")
    def evaluate(
        run: Run = default,
        part: Annotated[str, typer.Option(help="test, or valid for the validation part.")] = "test",
        metrics_at: Annotated[
            str | None, typer.Option(help="Places k of the metrics, such as 5,10,20; the run's if not given.")
        ] = None,
        filter_seen: Annotated[
            bool | None,
            typer.Option(help="Leave items of the user's history out of the ranking; the run's choice if not given."),
        ] = None,
        test_users: Annotated[
            int | None, typer.Option(help="Users that are ranked, at random; 0: all; the run's if not given.")
        ] = None,
        batch_size: Annotated[int | None, typer.Option(help="Users scored at once; the run's if not given.")] = None,
        by: Annotated[
            str | None,
            typer.Option(
                help="Also by parts of the targets: history (events before the target: 1-5, 6-20, 21-50, 51+), item "
                "(training events of the target: 0, 1-5, 6-50, 51+), or both with a comma."
            ),
        ] = None,
        baseline: Annotated[
            str | None,
            typer.Option(
                help="Also what these reach, of the same training events: popularity, recent (its last 7 days; "
                "recent:30 for 30), markov, itemknn, vsknn, ials, or some with commas."
            ),
        ] = None,
        data: Data = None,
        device: Device = "auto",
        as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    ) -> None:
        def work() -> None:
            served = ServedRun.open(run, data)
            parts, baselines = (() if text is None else tuple(text.split(",")) for text in (by, baseline))
            require_measurable(served, part, parts, baselines)  # before what follows from it is said of other options
            given = {
                "metrics_at": metrics_at, "filter_seen": filter_seen, "test_users": test_users, "batch_size": batch_size
            }  # fmt: skip
            config = with_given(served.config, device=device, **given)
            metrics = evaluate_run(served, load, config, part, parts, baselines)
            if as_json:
                typer.echo(json.dumps(metrics))
                return
            tables = [_table(name, rows) for name, rows in metrics.pop(BY, {}).items()]
            if beside := metrics.pop(BASELINES, None):
                tables.insert(0, _beside({"model": metrics, **beside}))
            typer.echo("\n\n".join(["\n".join(f"{name:<14} {value:.4f}" for name, value in metrics.items()), *tables]))

        guarded(work)

    add_recommend(app, framework, load, guarded)


def _table(name: str, segments: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of segments, one a line; of one without targets there are none."""
    metrics = max((list(segment) for segment in segments.values()), key=len)[1:]
    lines = [f"{name:<10} {'targets':>9}" + "".join(f" {metric:>9}" for metric in metrics)]
    for label, segment in segments.items():
        values = "".join(f" {segment[metric]:>9.4f}" if metric in segment else f" {'-':>9}" for metric in metrics)
        lines.append(f"{label:<10} {segment['targets']:>9}{values}")
    return "\n".join(lines)


def _beside(reached: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of the model and of baselines, one a line."""
    metrics = [name for name in reached["model"] if name.partition("@")[0] in METRICS]
    lines = [f"{'':<12}" + "".join(f" {metric:>9}" for metric in metrics)]
    lines += [f"{name:<12}" + "".join(f" {each[metric]:>9.4f}" for metric in metrics) for name, each in reached.items()]
    return "\n".join(lines)
