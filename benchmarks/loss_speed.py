"""Time and memory of one loss step (draw, forward, backward) on a GPU: ours against plain PyTorch and plain JAX.

    python -m benchmarks.loss_speed --csv benchmarks/results/loss_speed.csv
    python -m benchmarks.loss_speed --table benchmarks/results/loss_speed.csv

PyTorch is timed by CUDA events around calls (eager)
and around replays of a captured CUDA graph; JAX by the wall clock over chained steps under jit. The median is reported.
Peak memory is what a step takes above inputs and gradients of inputs.
"""

from __future__ import annotations

import csv
import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import torch
import triton
import typer
from cce_minus import jax_impl, torch_impl
from cce_minus.kernels import UniformNegatives

SHAPES = {  # N rows, K negatives, V items, D width
    "A": (16384, 512, 300_000, 256),
    "B": (32768, 1024, 1_000_000, 128),
    "A, K=65536": (16384, 65536, 300_000, 256),
}
WARM_UP, REPEATS = 3, 15


def eager_loss(hidden: torch.Tensor, table: torch.Tensor, target: torch.Tensor, negatives: int) -> torch.Tensor:
    """CE- as one writes it in PyTorch: uniform ids, gathered rows, hits masked, cross-entropy over K + 1 logits."""
    num_items = len(table)
    ids = torch.randint(0, num_items, (len(hidden), negatives), device=hidden.device)
    logits = torch.einsum("nd,nkd->nk", hidden, table[ids]).float()
    hits = ids == target[:, None]
    kept = (~hits).sum(1, keepdim=True)
    logits = (logits + torch.log((num_items - 1) / kept)).masked_fill(hits, -math.inf)
    positive = (hidden * table[target]).sum(1, keepdim=True).float()
    return torch.nn.functional.cross_entropy(torch.cat([positive, logits], 1), torch.zeros_like(target))


def xla_loss(hidden: jax.Array, table: jax.Array, target: jax.Array, key: jax.Array, negatives: int) -> jax.Array:
    """The same in JAX."""
    ids = jax.random.randint(key, (len(hidden), negatives), 0, len(table))
    logits = jnp.einsum("nd,nkd->nk", hidden, table[ids], preferred_element_type=jnp.float32)
    hits = ids == target[:, None]
    kept = (~hits).sum(1, keepdims=True)
    logits = jnp.where(hits, -jnp.inf, logits + jnp.log((len(table) - 1) / kept))
    positive = jnp.einsum("nd,nd->n", hidden, table[target], preferred_element_type=jnp.float32)[:, None]
    return (jax.nn.logsumexp(jnp.concatenate([positive, logits], 1), axis=1) - positive[:, 0]).mean()


def time_torch(step: Callable[[], object]) -> float:
    """Median milliseconds of a call, by CUDA events."""
    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[REPEATS // 2]


def torch_rows(name: str, loss: Callable[..., torch.Tensor], shape: tuple[int, ...], capture: bool) -> list[dict[str, object]]:
    rows, negatives, items, dim = shape
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(rows, dim, device="cuda", dtype=torch.bfloat16, generator=generator).requires_grad_()
    table = (
        torch.empty(items, dim, device="cuda", dtype=torch.bfloat16).normal_(0, dim**-0.5, generator=generator).requires_grad_()
    )
    target = torch.randint(0, items, (rows,), device="cuda", generator=generator)

    def step() -> None:
        hidden.grad = table.grad = None
        loss(hidden, table, target, negatives).backward()

    step()
    hidden.grad = table.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    gradients = (hidden.numel() + table.numel()) * 2
    peak = (torch.cuda.max_memory_allocated() - before - gradients) / 2**20
    found = [{"provider": name, "timing": "eager", "ms": time_torch(step), "peak_mib": max(peak, 0)}]
    if capture:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        found.append({"provider": name, "timing": "graph", "ms": time_torch(graph.replay), "peak_mib": max(peak, 0)})
    return found


def jax_row(name: str, loss: Callable[..., jax.Array], shape: tuple[int, ...]) -> dict[str, object]:
    rows, negatives, items, dim = shape
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (rows, dim), jnp.bfloat16)
    table = jax.random.normal(keys[1], (items, dim), jnp.bfloat16) * dim**-0.5
    target = jax.random.randint(keys[2], (rows,), 0, items)

    @jax.jit
    def step(hidden: jax.Array, table: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        value, (hidden_grad, table_grad) = jax.value_and_grad(loss, (0, 1))(hidden, table, target, key, negatives)
        return value, hidden_grad, table_grad

    jax.block_until_ready(step(hidden, table, keys[3]))
    times = []
    for repeat in range(5):
        steps = [jax.random.fold_in(keys[3], repeat * 10 + i) for i in range(10)]
        jax.block_until_ready(steps)
        start = time.perf_counter()
        out = None
        for key in steps:
            out = step(hidden, table, key)
        jax.block_until_ready(out)
        times.append((time.perf_counter() - start) * 100)
    return {"provider": name, "timing": "jit", "ms": sorted(times)[2], "peak_mib": ""}


def measure(shape: tuple[int, ...]) -> list[dict[str, object]]:
    """One shape, all providers that fit, in one process."""
    rows, negatives, _, dim = shape

    def ours(group_size: int) -> Callable[..., torch.Tensor]:
        sampler = UniformNegatives(negatives, group_size)
        seed = torch.zeros(1, dtype=torch.int64, device="cuda")

        def loss(hidden: torch.Tensor, table: torch.Tensor, target: torch.Tensor, _: int) -> torch.Tensor:
            seed.add_(1)
            return torch_impl.sampled_linear_cross_entropy(hidden, table, target, sampler, seed=seed)

        return loss

    def ours_jax(hidden: jax.Array, table: jax.Array, target: jax.Array, key: jax.Array, _: int) -> jax.Array:
        return jax_impl.sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(negatives), seed=key)

    found = torch_rows("cce-minus, grouped", ours(128), shape, capture=True)
    if negatives < 10_000:
        found += torch_rows("cce-minus, independent", ours(1), shape, capture=True)
    found.append(jax_row("cce-minus, grouped (JAX)", ours_jax, shape))
    if rows * negatives * dim * 2 < 2**34:  # the gathered rows alone; they are held twice
        found += torch_rows("PyTorch eager", eager_loss, shape, capture=False)
        torch.cuda.empty_cache()
        found.append(jax_row("JAX under jit", xla_loss, shape))
    return found


def print_table(path: Path) -> None:
    """The CSV as a Markdown table."""
    with path.open() as file:
        found = list(csv.DictReader(file))
    print("| shape | provider | timing | ms | peak MiB above inputs and gradients |\n|---|---|---|---:|---:|")
    for row in found:
        peak = row["peak_mib"] and f"{float(row['peak_mib']):.0f}"
        size = f"{row['shape']}: N={row['rows']} K={row['negatives']} V={row['items']} D={row['dim']}"
        print(f"| {size} | {row['provider']} | {row['timing']} | {float(row['ms']):.2f} | {peak} |")
    print(f"\n{found[0]['gpu']}, torch {found[0]['torch']}, triton {found[0]['triton']}, jax {found[0]['jax']}, bf16.")


def main(
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Measure, and write the rows to this file.")] = None,
    table: Annotated[Path | None, typer.Option(help="Print the rows of this file as a Markdown table.")] = None,
    commit: Annotated[str, typer.Option(help="Commit to note in the rows; the checkout's where there is one.")] = "",
) -> None:
    """Measure loss steps on this GPU, or print what was measured."""
    if csv_path is not None:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
        versions = {
            "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
            "jax": jax.__version__, "commit": commit or head,
        }  # fmt: skip
        found = []
        for name, shape in SHAPES.items():
            sizes = dict(zip(("rows", "negatives", "items", "dim"), shape, strict=True))
            for row in measure(shape):
                print(name, row, flush=True)
                found.append({"shape": name, **sizes, **row, **versions})
        csv_path.parent.mkdir(parents=True, exist_ok=True)
        with csv_path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
    if table is not None:
        print_table(table)


if __name__ == "__main__":
    typer.run(main)
