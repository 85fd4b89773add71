"""``python -m benchmarks.catalog``: measure training steps on large catalogs, print and draw what came of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ..command_line import fail, names
from ..study.pool import alone
from .cases import CATALOGS, PROVIDERS
from .results import ResultsError, Row, markdown, read, versions

RESULTS = Path(__file__).parent.parent / "results"
CSV = RESULTS / "catalog.csv"
CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)


@app.command()
def run(
    catalogs: Annotated[str, typer.Option(help=f"By commas: {', '.join(CATALOGS)}.")] = ",".join(CATALOGS),
    providers: Annotated[str, typer.Option(help=f"By commas: {', '.join(PROVIDERS)}.")] = ",".join(PROVIDERS),
    csv: CsvOption = CSV,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Measure, each provider in a process of its own; a row replaces that of the same catalog and provider."""
    from .measure import measure  # torch and JAX load here, so that the other commands start at once

    chosen, who = names("catalogs", catalogs, tuple(CATALOGS)), names("providers", providers, tuple(PROVIDERS))
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    told = versions(commit or head)
    failed = 0
    for provider in who:
        try:
            alone(measure, provider, [CATALOGS[name] for name in chosen], csv, told)
        except Exception as error:  # whatever a provider dies of, the others are measured
            failed += 1
            typer.echo(f"failed: {provider}: {error!r}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print a Markdown table."""
    typer.echo(markdown(_read(csv)))


@app.command()
def plot(csv: CsvOption = CSV, out: Annotated[Path, typer.Option(help="Folder of the image.")] = RESULTS) -> None:
    """Draw catalog_step.png."""
    from .plots import draw

    typer.echo(draw(_read(csv), out / "catalog_step.png"))


def _read(csv: Path) -> list[Row]:
    try:
        rows = read(csv)
    except ResultsError as error:
        raise fail(error) from error
    if not rows:
        raise fail(f"{csv} has no rows; measure first: python -m benchmarks.catalog run")
    return rows


if __name__ == "__main__":
    app()
