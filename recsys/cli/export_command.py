"""The command export of both frameworks' command lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..serving.export import LoadExported, export_run
from ..serving.served_run import ServedRun
from .serving_options import Data, Device, Run


def add_export(
    app: typer.Typer, framework: str, load: LoadExported, guarded: Callable[[Callable[[], object]], None]
) -> None:
    """Adds the command to ``app``, with the arguments of `add_serving`."""

    @app.command("export", help="Write item vectors, an index of them, encoder and catalog for a server of your own.")
    def export(
        to: Annotated[Path, typer.Option(help="Folder for the files.")],
        run: Run = Path(f"runs/{framework}"),
        device: Device = "auto",
        index: Annotated[
            str | None,
            typer.Option(
                help="FAISS index: flat (exact), hnsw, ivf-pq or none; if not given, flat of at most 4 GiB of vectors."
            ),
        ] = None,
        program: Annotated[
            bool,
            typer.Option(
                "--program", help="Write the encoder as a program of the framework too, which runs without cce-minus."
            ),
        ] = False,
        data: Data = None,
    ) -> None:
        def work() -> None:
            for file in export_run(ServedRun.open(run, data), load, to, device=device, index=index, program=program):
                typer.echo(str(file))

        guarded(work)
