"""``python -m benchmarks.runs``: measure whole runs on an idle machine, and print and draw what came of it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..command_line import fail, names
from .cases import PARTS
from .results import ResultsError, Row, add, read, versions

RESULTS = Path(__file__).parent.parent / "results"
CSV = RESULTS / "runs.csv"
DATA_SETS = {"epoch": "git_commits", "command": "git_commits", "peer": "git_commits", "quality": "amazon_beauty"}

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)

CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of git_commits.parquet and amazon_beauty.parquet.")],
    parts: Annotated[str, typer.Option(help=f"By commas: {', '.join(PARTS)}.")] = ",".join(PARTS),
    providers: Annotated[
        str, typer.Option(help="Whose rows, by commas; plain is for ranking, rectools for peer.")
    ] = "torch,jax,plain,rectools",
    csv: CsvOption = CSV,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Measure, one after the other; a row replaces that of the same part, data set, method and framework."""
    from .measure import ALL_PROVIDERS, measure

    chosen = names("parts", parts, tuple(PARTS))
    ours = names("providers", providers, ALL_PROVIDERS)
    for name in {DATA_SETS[part] for part in chosen if part in DATA_SETS}:
        if not (data / f"{name}.parquet").is_file():
            raise fail(f"data: expected {name}.parquet in the folder {data}, got none")
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    told = versions(commit or head)
    failed = 0
    for part in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                for row in measure(part, ours, data, Path(folder), typer.echo):
                    add(csv, [{**row, **told}])
                    typer.echo(line({name: str(value) for name, value in row.items()}))
            except Exception as error:  # whatever a part dies of, the others are measured
                failed += 1
                typer.echo(f"failed: {part}: {error!r}", err=True)
    if failed:
        raise typer.Exit(1)


def line(row: Row) -> str:
    """A row for a terminal."""
    labels = ("part", "dataset", "method", "framework")
    told = [f"{name} {value}" for name, value in row.items() if name not in labels and value != "None"]
    return f"{', '.join(row[name] for name in labels)}: {', '.join(told)}"


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print Markdown tables, with what was aimed at."""
    from .table import markdown

    typer.echo(markdown(_read(csv)))


@app.command()
def plot(csv: CsvOption = CSV, out: Annotated[Path, typer.Option(help="Folder of the images.")] = RESULTS) -> None:
    """Draw runs_epoch.png, runs_commands.png, runs_ranking.png and runs_peer.png, as far as rows go."""
    from ..pictures import save_all
    from .plots import figures

    for path in save_all(figures(_read(csv)), out):
        typer.echo(path)


def _read(csv: Path) -> list[Row]:
    try:
        rows = read(csv)
    except ResultsError as error:
        raise fail(error) from error
    if not rows:
        raise fail(f"{csv} has no rows; measure first: python -m benchmarks.runs run")
    return rows


if __name__ == "__main__":
    app()
