"""Trains SASRec with PyTorch and with JAX on real data and prints one table: ``python -m benchmarks.demo``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.cli.commands import guarded
from rich.console import Console

OUT = Path("runs/demo")
OPTIONS: dict[str, Any] = {
    "batch_size": 32, "num_negatives": 256, "learning_rate": 3e-3, "warmup_steps": 60, "epochs": 10, "patience": 5,
}  # fmt: skip
"""Of the run: fixed sizes, as both frameworks' steps are compared, and what learns within a minute on two cores."""

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def main(
    data: Annotated[
        str, typer.Option(help="Data set by name, or the path of a file with the default columns.")
    ] = "ml-100k",
    seed: Annotated[int, typer.Option(help="Seed of weights, batches, dropout and negatives.")] = 0,
) -> None:
    """Trains SASRec in both frameworks from the same start and compares them with each other and with popularity.

    Writes to runs/demo, replacing an earlier demonstration's files. Ends with status 1 when a promise is broken, saying
    which: each model reaches twice popularity's NDCG@10, and the frameworks' losses of one step agree.
    """
    # JAX would take three quarters of a GPU at its first use, and PyTorch shares that GPU here.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    console = Console()
    console.print("Loading PyTorch and JAX ...")
    from .run import run_demo  # after the environment is set

    shutil.rmtree(OUT, ignore_errors=True)
    broken: list[str] = []
    guarded(lambda: broken.extend(run_demo(TrainConfig(data=data, seed=seed, out=str(OUT), **OPTIONS), console)))
    for promise in broken:
        typer.echo(f"promise broken: {promise}", err=True)
    raise typer.Exit(1 if broken else 0)


if __name__ == "__main__":
    app()
