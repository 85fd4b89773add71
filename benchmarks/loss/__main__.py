"""``python -m benchmarks.loss``: measure loss steps on one GPU, plot and print what was measured."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ..command_line import fail
from .results import ResultsError, read
from .shapes import SHAPES, SWEEPS, select

RESULTS = Path(__file__).parent.parent / "results"
CSV = RESULTS / "loss.csv"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)

CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]


@app.command()
def run(
    shapes: Annotated[str, typer.Option(help=f"Names, by commas: {', '.join([*SHAPES, *SWEEPS])}.")] = "A,B",
    targets: Annotated[str, typer.Option(help="uniform, zipf or both by a comma.")] = "uniform",
    providers: Annotated[str, typer.Option(help="Only providers with one of these in their name, by commas.")] = "",
    without: Annotated[str, typer.Option(help="No provider with one of these in its name, by commas.")] = "",
    peers: Annotated[Path | None, typer.Option(help="Folder of peers' checkouts; see benchmarks/README.md.")] = None,
    csv: CsvOption = CSV,
    time_limit: Annotated[
        float, typer.Option(help="Seconds of timing a shape, shared by its providers; a few slow steps more.")
    ] = 30.0,
    rounds: Annotated[int, typer.Option(help="Rounds at most; medians and quantiles are over them.")] = 15,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Measure shapes, each provider's loss and gradients checked beforehand; rows replace those of the same shapes and
    providers."""
    from .run import RunError, run_shapes  # torch and JAX load here, so that the other commands start at once

    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    try:
        run_shapes(
            select(shapes),
            _names(targets),
            _names(providers),
            _names(without),
            peers,
            csv,
            time_limit,
            rounds,
            commit or head,
        )
    except (KeyError, ResultsError, RunError) as error:
        raise fail(error.args[0]) from error


@app.command()
def host(
    shapes: Annotated[str, typer.Option(help=f"Names, by commas: {', '.join([*SHAPES, *SWEEPS])}.")] = "A,B",
) -> None:
    """Print the host's milliseconds of PyTorch's eager step, its forward and its backward, in an idle process."""
    from .host import host_times

    try:
        for shape in select(shapes):
            times = ", ".join(f"{name} {ms:.3f}" for name, ms in host_times(shape).items())
            typer.echo(f"{shape}: {times}")
    except KeyError as error:
        raise fail(error.args[0]) from error


@app.command()
def plot(
    csv: CsvOption = CSV,
    out: Annotated[Path, typer.Option(help="Folder of the images.")] = RESULTS,
) -> None:
    """Draw loss_time.png, loss_memory.png, loss_matmul.png and loss_every_item.png, as far as rows go."""
    from ..pictures import save_all
    from .plots import figures

    try:
        for path in save_all(figures(read(csv)), out):
            typer.echo(path)
    except ResultsError as error:
        raise fail(error) from error


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print a Markdown table with each provider's time relative to the paper's kernel."""
    from .table import markdown

    try:
        typer.echo(markdown(read(csv)))
    except ResultsError as error:
        raise fail(error) from error


if __name__ == "__main__":
    app()
