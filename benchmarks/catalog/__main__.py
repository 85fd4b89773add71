"""``python -m benchmarks.catalog``: measure training steps on large catalogs, print and draw what came of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ..command_line import fail, names
from ..study.pool import alone
from .cases import CATALOGS, PROVIDERS
from .results import ResultsError, Row, add_run, markdown, read, read_runs, run_markdown, versions

RESULTS = Path(__file__).parent.parent / "results"
CSV, RUNS = RESULTS / "catalog.csv", RESULTS / "catalog_runs.csv"
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
    told = versions(commit or _head())
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
def whole(
    items: Annotated[int, typer.Option(help="Items of the catalog, most of them without events.", min=1_000_000)],
    frameworks: Annotated[str, typer.Option(help="torch and jax, by commas.")] = "torch,jax",
    epochs: Annotated[int, typer.Option(help="Of the training, which is killed after the first.", min=2)] = 4,
    csv: Annotated[Path, typer.Option(help="The file of results.")] = RUNS,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Train, kill, resume, evaluate, recommend and export by the commands, on a log with a planted structure."""
    from .whole_run import OPTIONS, whole_run

    of_all = {name: OPTIONS[name] for name in ("dim", "item_optimizer")} | {"dtype": OPTIONS["table_dtype"]}
    told = {**of_all, **versions(commit or _head())}
    for framework in names("frameworks", frameworks, ("torch", "jax")):
        for row in whole_run(framework, items, {"epochs": epochs}, typer.echo):
            add_run(csv, {"items": items, "framework": framework, **row, **told})


@app.command()
def table(csv: CsvOption = CSV, runs: Annotated[Path, typer.Option(help="The file of whole runs.")] = RUNS) -> None:
    """Print Markdown tables: of steps, and of whole runs where there are any."""
    typer.echo(markdown(_read(csv)))
    if rows := read_runs(runs):
        typer.echo(f"\n{run_markdown(rows)}")


@app.command()
def plot(csv: CsvOption = CSV, out: Annotated[Path, typer.Option(help="Folder of the image.")] = RESULTS) -> None:
    """Draw catalog_step.png."""
    from ..pictures import save_all
    from .plots import figures

    for path in save_all(figures(_read(csv)), out):
        typer.echo(path)


def _head() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


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
