"""The commands evaluate and recommend of both frameworks' command lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..serving.served_run import Load, ServedRun, evaluate_run
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
        data: Data = None,
        device: Device = "auto",
        as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    ) -> None:
        def work() -> None:
            if part not in ("test", "valid"):
                raise ConfigError(f"part: expected test or valid, got {part}")
            served = ServedRun.open(run, data)
            served.require_part(part)  # before what follows from it is said of other options
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

    add_recommend(app, framework, load, guarded)
