"""Options that the commands which serve a run share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Option(help="Folder of a training run, of either framework.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Where the run's data are now, or another log of the same columns; its events of items that the run does "
        "not know are left out."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
