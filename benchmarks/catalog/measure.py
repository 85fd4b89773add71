"""The rows of a provider, in a process of its own: what a step takes on each catalog that fits."""

from __future__ import annotations

from pathlib import Path

import torch
import typer

from . import jax_steps, torch_steps
from .cases import DENSE, INPUTS, JAX, NEGATIVES, ROWS, Catalog, fits
from .results import add


class NoGpuError(Exception):
    """There is nothing to measure on."""


def measure(provider: str, catalogs: list[Catalog], csv: Path, told: dict[str, object]) -> None:
    """Adds a row to ``csv`` for each catalog, and prints it; raises ``NoGpuError``."""
    if not torch.cuda.is_available():
        raise NoGpuError("expected an NVIDIA GPU, got none")
    memory = torch.cuda.mem_get_info()[1]
    for catalog in catalogs:
        if not fits(provider, catalog, memory):
            typer.echo(f"{provider}, {catalog.name}: left out: it does not fit in {memory / 2**30:.0f} GiB")
            continue
        found = jax_steps.measure(catalog) if provider == JAX else torch_steps.measure(provider, catalog)
        sizes = {"rows": ROWS, "inputs": "" if provider == DENSE else INPUTS, "negatives": NEGATIVES}
        row = {"catalog": catalog.name, "items": catalog.items, "dim": catalog.dim, "dtype": catalog.dtype}
        add(csv, {**row, **sizes, "provider": provider, **found, **told})
        typer.echo(f"{provider}, {catalog.name}: {found}")
