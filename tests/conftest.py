"""What every test runs under."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.grid import waits
from tests.interpreter import improve

# Triton reads this when a kernel is defined, so it must be set before any test module imports one.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    improve()
# JAX takes most of a GPU's memory at start otherwise, and torch shares the device in these tests.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# Tests run side by side, and Triton's interpreter is not thread-safe. Processes that tests start must sum in the same
# order as theirs.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    has_gpu = torch.cuda.is_available()
    for item in items:
        if not has_gpu and waits(item.nodeid):
            item.add_marker(pytest.mark.grid)
        if "gpu" in item.keywords and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if "interpreter" in item.keywords and has_gpu:
            item.add_marker(pytest.mark.skip(reason="kernels are compiled here, not interpreted"))


@pytest.fixture(scope="module")
def compiles_fast() -> Iterator[None]:
    """For modules whose every case compiles anew, which takes most of their time; the others optimise. What is compiled
    so is not left to them."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not torch.cuda.is_available())
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


_MANY_MAPPINGS = 30_000
"""Of memory, of the 65,530 that Linux grants a process by default."""


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Frees what JAX has compiled where it is much: each program for a CPU takes several mappings of memory, and XLA
    ends the process that gets no more."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > _MANY_MAPPINGS:
        import jax

        jax.clear_caches()
