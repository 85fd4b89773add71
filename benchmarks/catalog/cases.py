"""What is measured: catalogs, and who takes a step on them."""

from __future__ import annotations

from dataclasses import dataclass

ROWS, INPUTS, NEGATIVES, GROUP = 25_600, 25_600, 1024, 128
"""A batch of 512 users with 50 items each, which are inputs and targets; draws of a group of rows."""


@dataclass(frozen=True)
class Catalog:
    """A table of ``items`` vectors of width ``dim`` in ``dtype``."""

    name: str
    items: int
    dim: int
    dtype: str

    @property
    def bytes(self) -> int:
        return self.items * self.dim * (2 if self.dtype == "bfloat16" else 4)


CATALOGS = {
    catalog.name: catalog
    for catalog in (
        Catalog("1M", 1_000_000, 64, "float32"),
        Catalog("10M", 10_000_000, 64, "float32"),
        Catalog("40M", 40_000_000, 64, "float32"),
        Catalog("100M", 100_000_000, 64, "float32"),
        Catalog("100M-128", 100_000_000, 128, "float32"),
        Catalog("400M", 400_000_000, 64, "bfloat16"),
        Catalog("500M", 500_000_000, 64, "bfloat16"),
    )
}

TORCH, JAX, DENSE, SPARSE = "torch", "jax", "dense-adamw", "sparse-adam"
HOST, BESIDE = "torch-host", "torch-beside"

PROVIDERS = {
    TORCH: "CCE-minus, PyTorch: working set, loss, row-wise Adagrad, as a CUDA graph",
    JAX: "CCE-minus, JAX: the same, steps chained under jit",
    DENSE: "the same loss on the whole table, torch.optim.AdamW (fused), as a CUDA graph",
    SPARSE: "working set and loss, sparse gradients, torch.optim.SparseAdam, eager",
    BESIDE: "CCE-minus, PyTorch, eager, with a model of 8 ms a step",
    HOST: "CCE-minus, PyTorch, eager, with a model of 8 ms, the table in the host's memory, rows fetched a step ahead",
}

MODEL_MS = 8.0

_TIMES = {DENSE: 5, SPARSE: 4, HOST: 0.1}
"""The bytes of a step over its table's: weights and two moments, and of a dense one the gradient."""


def fits(provider: str, catalog: Catalog, memory: int) -> bool:
    """Whether a provider's step is tried on a GPU with so many bytes."""
    return _TIMES.get(provider, 1.1) * catalog.bytes < memory
