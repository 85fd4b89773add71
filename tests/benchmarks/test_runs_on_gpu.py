"""The trace of whole runs sees the kernels of both frameworks, those of graphs too."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
import torch

from benchmarks.runs.device_time import DeviceTrace, prepare

pytestmark = pytest.mark.gpu

SIZE, CALLS = 8192, 20
LEAST = CALLS * 2 * SIZE**3 / 2e15
"""Seconds of the products at a rate that no card has yet. Others may share the card, so that they take far longer."""


def in_torch() -> Callable[[], None]:
    rows = torch.ones(SIZE, SIZE, dtype=torch.bfloat16, device="cuda")
    torch.matmul(rows, rows)  # cuBLAS sets itself up
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.matmul(rows, rows)

    def run() -> None:
        for _ in range(CALLS):
            graph.replay()
        torch.cuda.synchronize()

    return run


def in_jax() -> Callable[[], None]:
    rows = jnp.ones((SIZE, SIZE), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a).lower(rows).compile()

    def run() -> None:
        jax.block_until_ready([product(rows) for _ in range(CALLS)])

    return run


@pytest.mark.parametrize("of", [in_torch, in_jax])
def test_kernels_are_seen(of: Callable[[], Callable[[], None]]):
    prepare()
    run = of()
    run()
    trace = DeviceTrace()
    trace.start()
    began = time.perf_counter()
    run()
    took = time.perf_counter() - began
    trace.stop()
    assert trace.seconds is not None
    assert LEAST < trace.seconds < 1.05 * took
