"""``python -m benchmarks.study``: train the grid, time its steps, and print and draw what came of it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..command_line import fail
from .cells import DATASETS, Run
from .parts import NAMES, PARTS, select
from .results import ResultsError, add, add_times, describe, read

RESULTS = Path(__file__).parent.parent / "results"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)

CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]
DataOption = Annotated[
    Path, typer.Option(help="Folder of <data set>.parquet files with user_id, item_id and timestamp.")
]
PartsOption = Annotated[str, typer.Option(help=f"By commas: {', '.join(PARTS)}.")]
DatasetsOption = Annotated[str, typer.Option(help=f"Only these, by commas: {', '.join(NAMES)}.")]
CommitOption = Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")]
CSV = RESULTS / "study.csv"
ALL_PARTS = ",".join(PARTS)


@app.command()
def run(
    data: DataOption,
    parts: PartsOption = ALL_PARTS,
    datasets: DatasetsOption = "",
    csv: CsvOption = CSV,
    jobs: Annotated[int, typer.Option(help="Trainings at once on a GPU.", min=1)] = 4,
    minutes: Annotated[float, typer.Option(help="Begin no training after so many minutes.")] = 1e9,
    commit: CommitOption = "",
) -> None:
    """Train what has no row yet, several runs at once on each GPU; stopped, the same command goes on with the next
    run."""
    import torch

    gpus = torch.cuda.device_count()
    todo = _missing(_selected(parts, datasets), csv)
    versions = _versions(commit)
    failed = 0
    from .pool import train_all

    with tqdm(total=len(todo), unit="run", smoothing=0) as bar:
        for done, outcome in train_all(todo, data, gpus=gpus, jobs=jobs, seconds=60 * minutes):
            name = f"{done.cell.dataset.name}, {done.cell.method.name}, seed {done.seed}"
            if isinstance(outcome, Exception):
                failed += 1
                bar.write(f"failed: {name}: {outcome!r}")
                continue
            add(csv, [{**_labels(done, data), **versions, **outcome}])
            bar.write(f"{name}: test NDCG@10 {outcome['test_ndcg@10']:.4f}, {outcome['train_seconds']:.0f} s")
            bar.update()
    left = len(_missing(todo, csv))
    typer.echo(f"{len(todo) - left} runs trained, {failed} failed, {left} left")
    if failed:
        raise typer.Exit(1)


@app.command("time")
def time_steps(
    data: DataOption,
    parts: PartsOption = ALL_PARTS,
    datasets: DatasetsOption = "",
    csv: CsvOption = CSV,
    again: Annotated[bool, typer.Option(help="Also cells that have been timed.")] = False,
    commit: CommitOption = "",
) -> None:
    """Measure steps of the trained cells, one after the other on an idle GPU, and write them into the cells' rows."""
    import torch

    from .timing import measure_cell

    if not torch.cuda.is_available():
        raise fail("no NVIDIA GPU to measure on")
    rows = _read(csv)
    at = _versions(commit)["commit"]
    trained = {row["digest"] for row in rows if again or not row["step_ms"]}
    # rows of a product's run have several lengths: there is no such thing as its step
    runs = [run for run in _selected(parts, datasets) if not run.cell.method.of_product]
    cells = {run.cell.digest: run.cell for run in runs if run.cell.digest in trained}
    for digest, cell in tqdm(cells.items(), unit="cell"):
        times = measure_cell(cell, data, torch.device("cuda"))
        add_times(csv, digest, {**times, "times_commit": at})
        tqdm.write(
            f"{cell.dataset.name}, {cell.method.name}: loss {times['loss_ms']:.3f} ms, step {times['step_ms']:.3f} ms"
        )


@app.command()
def epochs(
    data: DataOption,
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "git_commits",
    csv: Annotated[Path, typer.Option("--csv", help="The file of results.")] = RESULTS / "study_epochs.csv",
    frameworks: Annotated[str, typer.Option(help="torch, jax or both by a comma.")] = "torch,jax",
    commit: CommitOption = "",
) -> None:
    """Time epochs of the training commands with our loss, eager CE- and full CE, one after the other on an idle GPU."""
    from .epoch_time import FRAMEWORKS, LOSSES, add, measure
    from .pool import alone

    if dataset not in DATASETS:
        raise fail(f"data set: expected one of {', '.join(DATASETS)}, got {dataset}")
    chosen = [name.strip() for name in frameworks.split(",")]
    if not set(chosen) <= set(FRAMEWORKS):
        raise fail(f"frameworks: expected some of {', '.join(FRAMEWORKS)}, got {frameworks}")
    versions = _versions(commit)
    for framework in chosen:
        for method in LOSSES:
            row = alone(measure, framework, method, data, dataset)
            add(csv, [{**row, **versions}])
            typer.echo(
                f"{framework}, {method.name}: {row['epoch_seconds']:.2f} s an epoch, {row['training_seconds']:.2f} s "
                f"without validation"
            )


@app.command()
def collect(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs of the training commands.")],
    csv: CsvOption = CSV,
    gpu: Annotated[str, typer.Option(help="The GPU that they ran on.")] = "",
    torch_version: Annotated[str, typer.Option(help="The version of torch that they ran with.")] = "",
    triton_version: Annotated[str, typer.Option(help="The version of triton that they ran with.")] = "",
    commit: CommitOption = "",
) -> None:
    """Add a row for each finished run of ``cce-minus-torch train`` or ``cce-minus-jax train``."""
    from .collect import row_of

    versions = {"gpu": gpu, "torch": torch_version, "triton": triton_version, "commit": commit}
    try:
        add(csv, [{**row_of(folder), **versions} for folder in folders])
    except ResultsError as error:
        raise fail(error) from error


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print Markdown tables: what each method reached on each data set, and what it cost."""
    from .defaults_table import OF_PRODUCT, defaults_table
    from .table import item_tables, markdown

    try:
        rows = _read(csv)
        if found := defaults_table(rows):
            typer.echo(f"### The defaults beside a search\n\n{found}\n")
        rows = [row for row in rows if row["method"] not in OF_PRODUCT]
        typer.echo(markdown(rows))
        if found := item_tables(rows):
            typer.echo(f"\n### Rows of the item table alone\n\n{found}")
    except ResultsError as error:
        raise fail(error) from error


@app.command()
def plot(csv: CsvOption = CSV, out: Annotated[Path, typer.Option(help="Folder of the images.")] = RESULTS) -> None:
    """Draw study_losses.png, study_sharing.png, study_time.png, study_negatives.png, study_balance.png and
    study_epochs.png, as far as rows go."""
    from ..pictures import save_all
    from .defaults_table import OF_PRODUCT
    from .epoch_time import COLUMNS as EPOCHS
    from .plots import epoch_figures, figures

    try:
        made = figures([row for row in _read(csv) if row["method"] not in OF_PRODUCT])
        timed = read(csv.with_name("study_epochs.csv"), EPOCHS)
        for path in save_all({**made, **(epoch_figures(timed) if timed else {})}, out):
            typer.echo(path)
    except ResultsError as error:
        raise fail(error) from error


def _selected(parts: str, datasets: str) -> list[Run]:
    names = [[name.strip() for name in text.split(",") if name.strip()] for text in (parts, datasets)]
    try:
        return select(*names)
    except KeyError as error:
        raise fail(error.args[0]) from error


def _missing(runs: list[Run], csv: Path) -> list[Run]:
    present = {(row["digest"], row["seed"]) for row in _read(csv) if row["framework"] == "torch"}
    return [run for run in runs if run.key not in present]


def _labels(run: Run, data: Path) -> dict[str, object]:
    method = run.cell.method
    labels = describe(run.cell.config(data, run.seed)) | {
        "framework": "torch",
        "method": method.name,
        "digest": run.cell.digest,
    }
    # Of one draw for the whole batch there are no groups, and no rows to put into them.
    return labels | (
        {"one_draw": True, "group_size": "", "shuffle_rows": ""} if method.one_draw else {"one_draw": False}
    )


def _versions(commit: str) -> dict[str, object]:
    import torch

    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "triton": importlib.metadata.version("triton"),
        "commit": commit or head,
    }


def _read(csv: Path) -> list[dict[str, str]]:
    try:
        return read(csv)
    except ResultsError as error:
        raise fail(error) from error


if __name__ == "__main__":
    app()
