"""The command forget of both frameworks' command lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..serving.forget import forget
from ..serving.served_run import ServedRun


def add_forget(app: typer.Typer, framework: str, guarded: Callable[[Callable[[], object]], None]) -> None:
    """Adds the command to ``app``; ``guarded`` runs its work and turns its typed errors into one line."""

    @app.command("forget", help="Remove items, or users of a log that the run holds, from a run's files.")
    def command(
        run: Annotated[Path, typer.Option(help="Folder of a training run, of either framework.")] = Path(
            f"runs/{framework}"
        ),
        item: Annotated[list[str] | None, typer.Option(help="An item, by its id in the log; repeat for more.")] = None,
        user: Annotated[list[str] | None, typer.Option(help="A user, by its id in the log; repeat for more.")] = None,
    ) -> None:
        def work() -> None:
            for line in forget(ServedRun.open(run), items=item or [], users=user or []):
                typer.echo(line)

        guarded(work)
