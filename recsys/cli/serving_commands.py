"""The commands evaluate and recommend of both frameworks' command lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..serving.recommendations import check_output, recommend_run, write_recommendations
from ..serving.served_run import Load, ServedRun, evaluate_run

Run = Annotated[Path, typer.Option(help="Folder of a training run, of either framework.")]
Data = Annotated[str | None, typer.Option(help="Where the run's data are now, if they have moved since.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]


def add_serving(app: typer.Typer, framework: str, load: Load, guarded: Callable[[Callable[[], object]], None]) -> None:
    """Adds the two commands to ``app``. ``load`` gives the framework's `ServedModel`; ``guarded`` runs a command's
    work and turns its typed errors into one line."""
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
        data: Data = None,
        device: Device = "auto",
        as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    ) -> None:
        def work() -> None:
            if part not in ("test", "valid"):
                raise ConfigError(f"part: expected test or valid, got {part}")
            served = ServedRun.open(run, data)
            given = {
                "metrics_at": metrics_at, "filter_seen": filter_seen, "test_users": test_users, "batch_size": batch_size
            }  # fmt: skip
            changes = {name: value for name, value in given.items() if value is not None}
            config = dataclasses.replace(served.config, device=device, **changes)
            metrics = evaluate_run(served, load, config, part)
            typer.echo(
                json.dumps(metrics)
                if as_json
                else "\n".join(f"{name:<14} {value:.4f}" for name, value in metrics.items())
            )

        guarded(work)

    @app.command("recommend", help=_RECOMMEND.format(framework=framework))
    def recommend(
        run: Run = default,
        user: Annotated[
            list[str] | None, typer.Option(help="A user of the run's data, by its id there; repeat for more.")
        ] = None,
        sequences: Annotated[
            Path | None, typer.Option(help="JSON or Parquet file of item sequences, the latest item last.")
        ] = None,
        k: Annotated[int, typer.Option(help="Items for each user.")] = 10,
        filter_seen: Annotated[bool, typer.Option(help="Leave out items that are already in the history.")] = True,
        skip_unknown: Annotated[
            bool, typer.Option(help="Leave items that the model does not know out of sequences.")
        ] = False,
        data: Data = None,
        output: Annotated[Path | None, typer.Option(help="Write a .json or .parquet file instead of a table.")] = None,
        device: Device = "auto",
    ) -> None:
        def work() -> None:
            if output is not None:
                check_output(output)
            rows = recommend_run(
                ServedRun.open(run, data), load, users=user or [], sequences=sequences, k=k,
                filter_seen=filter_seen, skip_unknown=skip_unknown, device=device,
            )  # fmt: skip
            if output is not None:
                write_recommendations(rows, output)
                typer.echo(f"{output}: {len(rows)} users")
                return
            for row in rows:
                typer.echo(f"user {row.user}, who had last {' - '.join(row.last_seen)}")
                for place, (item, name) in enumerate(zip(row.items, row.names, strict=True), start=1):
                    typer.echo(f"  {place:>3}  {name}" + ("" if name == str(item) else f"  [{item}]"))

        guarded(work)


_RECOMMEND = """Recommend the best next items over the full catalog.

For users of the data: cce-minus-{framework} recommend --user 42 --user 7

For sequences of your own: cce-minus-{framework} recommend --sequences histories.json --k 20 --output top.parquet
"""
