"""A run: providers, shapes, and rows written shape by shape."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import torch
import triton
from rich.console import Console

from .gate import GateError
from .inputs import TARGETS
from .measure import Bench, DeviceLost
from .peers import peer_providers
from .plain_scalable import plain_providers
from .provider import Provider
from .providers_jax import jax_providers
from .providers_losses import loss_providers
from .providers_torch import torch_providers
from .results import check_machine, replace
from .shapes import Shape
from .timing import machine_rates


class RunError(Exception):
    """A run that cannot start or go on."""


def run_shapes(
    shapes: list[Shape], targets: list[str], only: list[str], without: list[str], peers: Path | None, csv: Path,
    seconds: float, rounds: int, commit: str,
) -> None:  # fmt: skip
    """Measure every shape with every kind of targets; raises RunError without a GPU, or where a provider of this
    project is wrong."""
    if unknown := set(targets) - set(TARGETS):
        raise RunError(f"no targets {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if not torch.cuda.is_available() or jax.default_backend() != "gpu":
        raise RunError(f"PyTorch and JAX need the GPU (JAX has {jax.default_backend()})")
    gpu = torch.cuda.get_device_name()
    check_machine(csv, gpu)
    console = Console(width=160)
    foreign, missing = peer_providers(peers)
    known = (*torch_providers(), *jax_providers(), *foreign, *loss_providers(), *plain_providers())
    providers = [provider for provider in known if _wanted(provider, only, without)]
    versions = {
        "gpu": gpu,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "jax": jax.__version__,
        "commit": commit,
    }
    rates = machine_rates()
    console.print(
        f"{versions}, {rates['matmul_tflops']:.0f} TFLOP/s, {rates['copy_gb_s']:.0f} GB/s",
        markup=False,
        highlight=False,
    )
    bench = Bench(providers, "cuda", rounds, seconds, dict(versions), rates, console)
    for name, reason in missing.items():
        bench.note(f"{name} skipped: {reason}")
    try:
        for shape in shapes:
            for kind in targets:
                begin = time.perf_counter()
                replace(csv, bench.measure(shape, kind))
                console.print(f"  {time.perf_counter() - begin:.0f} s", style="dim")
    except (GateError, DeviceLost) as error:
        raise RunError(str(error)) from error
    finally:
        if bench.notes:
            console.print("\nLeft out:", style="bold")
            for line in bench.notes:
                console.print(f"  {line}", markup=False, highlight=False)


def _wanted(provider: Provider, only: list[str], without: list[str]) -> bool:
    name = provider.name.lower()
    return (not only or any(part in name for part in only)) and not any(part in name for part in without)
