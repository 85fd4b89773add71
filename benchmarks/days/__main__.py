"""``python -m benchmarks.days``: train the day's runs, and print and draw what warm starts reach."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..command_line import fail, names
from ..runs.results import versions
from .cells import FRAMEWORKS, FULL, LOGS, WARM, select
from .results import ResultsError, Row, add, missing, read

RESULTS = Path(__file__).parent.parent / "results"
CSV = RESULTS / "warm_start.csv"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)

CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help=f"Folder of {', '.join(f'{name}.parquet' for name in LOGS)}.")],
    datasets: Annotated[str, typer.Option(help=f"By commas: {', '.join(LOGS)}.")] = ",".join(LOGS),
    frameworks: Annotated[str, typer.Option(help="torch, jax or both by a comma.")] = ",".join(FRAMEWORKS),
    csv: CsvOption = CSV,
    jobs: Annotated[int, typer.Option(help="Chains of runs at once on a GPU.", min=1)] = 8,
    minutes: Annotated[float, typer.Option(help="Begin no chain after so many minutes.")] = 1e9,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Train the chains that have no rows yet, several at once on each GPU; stopped, the same command goes on with the
    next one."""
    import torch

    chosen = names("datasets", datasets, tuple(LOGS))
    chains = select(chosen, names("frameworks", frameworks, FRAMEWORKS))
    for name in chosen:
        if not (data / f"{name}.parquet").is_file():
            raise fail(f"data: expected {name}.parquet in the folder {data}, got none")
    try:
        todo = missing(chains, csv)
    except ResultsError as error:
        raise fail(error) from error
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    told = versions(commit or head)
    from ..study import pool
    from .training import train_chain

    done = failed = 0
    gpus = torch.cuda.device_count()
    with tqdm(total=len(todo), unit="chain", smoothing=0) as bar:
        for chain, outcome in pool.spread(train_chain, todo, data, gpus=gpus, jobs=jobs, seconds=60 * minutes):
            if isinstance(outcome, Exception):
                failed += 1
                bar.write(f"failed: {chain.name}: {outcome!r}")
                continue
            add(csv, chain, outcome, told)
            done += 1
            bar.write(f"{chain.name}: {_told({str(row['kind']): row for row in outcome})}")
            bar.update()
    typer.echo(f"{done} chains trained, {failed} failed, {len(todo) - done} left")
    if failed:
        raise typer.Exit(1)


def _told(rows: dict[str, dict[str, object]]) -> str:
    full, warm = rows[FULL], rows[WARM]
    return (
        f"test NDCG@10 {full['test_ndcg@10']:.4f} after {full['steps_to_best']} steps, "
        f"warm {warm['test_ndcg@10']:.4f} after {warm['steps']}"
    )


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print a Markdown table, with what was aimed at."""
    from .table import markdown

    try:
        typer.echo(markdown(_read(csv)))
    except ResultsError as error:
        raise fail(error) from error


@app.command()
def plot(csv: CsvOption = CSV, out: Annotated[Path, typer.Option(help="Folder of the image.")] = RESULTS) -> None:
    """Draw warm_start.png."""
    from ..pictures import save_all
    from .plots import figures

    for path in save_all(figures(_read(csv)), out) or ["no rows of PyTorch to draw"]:
        typer.echo(path)


def _read(csv: Path) -> list[Row]:
    try:
        rows = read(csv)
    except ResultsError as error:
        raise fail(error) from error
    if not rows:
        raise fail(f"{csv} has no rows; train first: python -m benchmarks.days run")
    return rows


if __name__ == "__main__":
    app()
