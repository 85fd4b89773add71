"""``python -m benchmarks.scaling``: measure steps on a catalog that GPUs share, print and draw what came of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ..command_line import fail, names
from .cases import GPUS, KINDS, PROVIDERS, case_of
from .results import ResultsError, Row, add, markdown, read

RESULTS = Path(__file__).parent.parent / "results"
CSV = RESULTS / "scaling.csv"
CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)


@app.command()
def run(
    gpus: Annotated[str, typer.Option(help=f"Numbers by commas: {', '.join(map(str, GPUS))}.")] = "1,2",
    kinds: Annotated[str, typer.Option(help=f"By commas: {', '.join(KINDS)}.")] = ",".join(KINDS),
    providers: Annotated[str, typer.Option(help=f"By commas: {', '.join(PROVIDERS)}.")] = ",".join(PROVIDERS),
    csv: CsvOption = CSV,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Measure, each row in processes of its own; a row replaces that of the same framework, kind and number of GPUs."""
    import torch  # here, so that the other commands start at once

    from .measure import machine, measure
    from .workers import WorkersError

    counts = [int(each) for each in names("gpus", gpus, tuple(map(str, GPUS)))]
    chosen, who = names("kinds", kinds, tuple(KINDS)), names("providers", providers, tuple(PROVIDERS))
    if max(counts) > (there := torch.cuda.device_count()):
        raise fail(f"gpus: expected at most as many as there are, {there}, got {gpus}")
    told, failed = machine(commit or _head()), 0
    for count, kind, provider in ((count, kind, each) for count in counts for kind in chosen for each in who):
        name = f"{provider}, {kind}, GPUs: {count}"
        try:
            row = measure(provider, case_of(kind, count), True, told, _say)
        except WorkersError as error:  # the others are measured
            failed += 1
            _say(f"failed: {name}: {error}")
            continue
        add(csv, row)
        typer.echo(f"{name}: {row['ms']:.3f} ms, of which {row['exposed_ms']:.3f} exposed exchange ({row['how']})")
    if failed:
        raise typer.Exit(1)


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print Markdown tables."""
    typer.echo(markdown(_read(csv)))


@app.command()
def plot(csv: CsvOption = CSV, out: Annotated[Path, typer.Option(help="Folder of the images.")] = RESULTS) -> None:
    """Draw scaling_weak.png and scaling_strong.png."""
    from ..pictures import save_all
    from .plots import figures

    for path in save_all(figures(_read(csv)), out):
        typer.echo(path)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _head() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _read(csv: Path) -> list[Row]:
    try:
        rows = read(csv)
    except ResultsError as error:
        raise fail(error) from error
    if not rows:
        raise fail(f"{csv} has no rows; measure first: python -m benchmarks.scaling run")
    return rows


if __name__ == "__main__":
    app()
