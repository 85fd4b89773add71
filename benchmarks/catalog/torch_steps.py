"""Steps of PyTorch on a catalog, and their time on the GPU."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from cce_minus.torch_impl import (
    ItemTable,
    RowWiseAdagrad,
    UniformNegatives,
    WorkingSet,
    sampled_linear_cross_entropy,
    working_set,
)
from torch import Tensor

from .cases import BESIDE, DENSE, GROUP, HOST, INPUTS, MODEL_MS, NEGATIVES, ROWS, SPARSE, TORCH, Catalog

_ROUNDS, _STEPS, _WARM_UP = 11, 50, 3
_SAMPLER = UniformNegatives(NEGATIVES, GROUP)
_RATE = 0.01
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def measure(provider: str, catalog: Catalog) -> dict[str, object]:
    """Milliseconds of a step, the median over rounds, and MiB of the process's tensors at their peak."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    step = _STEPS_OF[provider](catalog)
    run = step if provider in (SPARSE, BESIDE, HOST) else _captured(step)
    for _ in range(_WARM_UP):
        run()
    times = [_milliseconds(run, _STEPS) for _ in range(_ROUNDS)]
    return {"ms": statistics.median(times), "mib": torch.cuda.max_memory_allocated() / 2**20}


def _batch(catalog: Catalog) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states in bfloat16, targets, inputs, and the seed, which each step moves on."""
    hidden = torch.randn(ROWS, catalog.dim, device=_DEVICE, dtype=torch.bfloat16).requires_grad_()
    target, inputs = (torch.randint(catalog.items, (size,), device=_DEVICE) for size in (ROWS, INPUTS))
    return hidden, target, inputs, torch.zeros(1, dtype=torch.int64, device=_DEVICE)


def _on_rows(catalog: Catalog, *, sparse: bool) -> Callable[[], None]:
    table = ItemTable(catalog.items, catalog.dim, dtype=getattr(torch, catalog.dtype), device=_DEVICE, sparse=sparse)
    hidden, target, inputs, seed = _batch(catalog)
    optimizer: torch.optim.Optimizer = (
        torch.optim.SparseAdam([table.weight], lr=_RATE) if sparse else RowWiseAdagrad([table], lr=_RATE)
    )

    def step() -> None:
        seed.add_(1)
        chosen = working_set(_SAMPLER, target, num_items=catalog.items, seed=seed, inputs=inputs)
        sampled_linear_cross_entropy(hidden, table(chosen), chosen.target, chosen).backward()
        optimizer.step()
        optimizer.zero_grad()
        hidden.grad = None

    return step


def _with_a_model(catalog: Catalog, *, host: bool) -> Callable[[], None]:
    """Each step names the rows of the next one, as a training does that has its next batch."""
    table = ItemTable(catalog.items, catalog.dim, dtype=getattr(torch, catalog.dtype), device=_DEVICE, host=host)
    hidden, target, inputs, seed = _batch(catalog)
    optimizer, model = RowWiseAdagrad([table], lr=_RATE), _model()

    def next_set() -> WorkingSet:
        seed.add_(1)
        return working_set(_SAMPLER, target, num_items=catalog.items, seed=seed.clone(), inputs=inputs)

    chosen = next_set()

    def step() -> None:
        nonlocal chosen
        rows, later = table(chosen), next_set()
        if host:
            table.fetch(later)
        sampled_linear_cross_entropy(hidden, rows, chosen.target, chosen).backward()
        model()
        optimizer.step()
        hidden.grad = None
        chosen = later

    return step


def _model() -> Callable[[], None]:
    """Matrix products of `MODEL_MS` milliseconds."""
    size = 8192 if _DEVICE == "cuda" else 64
    factor = torch.ones(size, size, device=_DEVICE, dtype=torch.bfloat16)
    times = 1
    if _DEVICE == "cuda":
        torch.mm(factor, factor)  # cuBLAS sets itself up
        times = round(MODEL_MS / _milliseconds(lambda: torch.mm(factor, factor), _STEPS))

    def run() -> None:
        for _ in range(times):
            torch.mm(factor, factor)

    return run


def _dense(catalog: Catalog) -> Callable[[], None]:
    table = torch.nn.Parameter(torch.empty(catalog.items, catalog.dim, device=_DEVICE).normal_(std=0.02))
    hidden, target, _, seed = _batch(catalog)
    optimizer = torch.optim.AdamW([table], lr=_RATE, fused=True, capturable=True)

    def step() -> None:
        seed.add_(1)
        sampled_linear_cross_entropy(hidden, table, target, _SAMPLER, seed=seed).backward()
        optimizer.step()
        optimizer.zero_grad()
        hidden.grad = None

    return step


_STEPS_OF: dict[str, Callable[[Catalog], Callable[[], None]]] = {
    TORCH: lambda catalog: _on_rows(catalog, sparse=False),
    SPARSE: lambda catalog: _on_rows(catalog, sparse=True),
    DENSE: _dense,
    BESIDE: lambda catalog: _with_a_model(catalog, host=False),
    HOST: lambda catalog: _with_a_model(catalog, host=True),
}


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """``step`` as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _milliseconds(call: Callable[[], object], steps: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(steps):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / steps
