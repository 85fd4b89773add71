"""Scalable cross-entropy on a GPU: repeatability, no wait for the device, CUDA graphs, large buckets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cce_minus.kernels.plan.nearest import plan_nearest
from cce_minus.torch_impl import scalable_linear_cross_entropy
from cce_minus.torch_impl.loss import buckets

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES: dict[str, Any] = {"n_buckets": 40, "bucket_size_x": 100, "bucket_size_y": 256}


def tensors(rows: int, items: int, dim: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(rows, dim, generator=generator, device="cuda", dtype=dtype).requires_grad_()
    table = (
        torch.empty(items, dim, device="cuda", dtype=dtype).normal_(0, dim**-0.5, generator=generator).requires_grad_()
    )
    target = torch.randint(0, items, (rows,), generator=generator, device="cuda")
    target[::3] = -100
    return hidden, table, target


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mix_x", [False, True])
def test_two_runs_are_bitwise_equal(mix_x: bool, dtype: torch.dtype):
    hidden, table, target = tensors(3000, 40_000, 128, dtype)  # rows at once, items by blocks
    runs = []
    for _ in range(2):
        loss = scalable_linear_cross_entropy(hidden, table, target, **SIZES, mix_x=mix_x, seed=5)
        runs.append((loss, *torch.autograd.grad(loss, (hidden, table))))
        torch.randn(10_000_000, device="cuda").sum()  # other work between the runs moves memory and schedules
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mix_x", [False, True])
def test_no_wait_for_the_device_and_graph_capture(mix_x: bool, dtype: torch.dtype):
    hidden, table, target = tensors(700, 40_000, 64, dtype)  # rows at once, items by blocks
    seed = torch.tensor([3], device="cuda")

    def step() -> tuple[torch.Tensor, ...]:
        loss = scalable_linear_cross_entropy(hidden, table, target, **SIZES, mix_x=mix_x, seed=seed)
        return loss.detach(), *torch.autograd.grad(loss, (hidden, table))

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        eager = [each.clone() for each in step()]  # compiles
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    for got, want in zip(captured, eager, strict=True):
        assert torch.equal(got, want)
    seed.fill_(4)
    graph.replay()
    assert not torch.equal(captured[0], eager[0]), "a replay with another seed makes other buckets"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_buckets_of_kernels_are_those_of_the_reference(dtype: torch.dtype):
    """A bucket of 320 rows, one of more than 256 rows, and a single row's; an odd number of items."""
    for size_x, size_y in ((300, 777), (1000, 100), (1, 65)):
        hidden, table, target = tensors(4000, 10_000, 96, dtype)
        results = []
        for impl in ("triton", "reference"):
            loss = scalable_linear_cross_entropy(
                hidden,
                table,
                target,
                n_buckets=17,
                bucket_size_x=size_x,
                bucket_size_y=size_y,
                seed=1,
                reduction="none",
                impl=impl,
            )
            results.append((loss, *torch.autograd.grad(loss.sum(), (hidden, table))))
        for ours, reference in zip(*results, strict=True):
            error = (ours.double() - reference.double()).norm() / reference.double().norm()
            assert error < {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("items", "dim", "size"), [(300_001, 128, 256), (40_000, 100, 70), (32_768, 64, 1000), (200_000, 320, 3000)]
)
def test_nearest_items_of_large_catalogs(items: int, dim: int, size: int, dtype: torch.dtype):
    """By tiles of blocks, by blocks, all at once, from sections of the products: no item left out has a clearly larger
    product."""
    generator = torch.Generator("cuda").manual_seed(0)
    table = torch.randn(items, dim, generator=generator, device="cuda", dtype=dtype)
    centres = torch.randn(70, dim, generator=generator, device="cuda").to(dtype)
    assert plan_nearest(70, items, size) is not None
    found = buckets.find_nearest(centres, table, None, size).long()
    assert (found.diff(dim=1) > 0).all()
    scores = centres.double() @ table.double().T
    smallest = scores.gather(1, found).amin(1)
    largest_left_out = scores.scatter(1, found, -torch.inf).amax(1)
    assert (largest_left_out - smallest).max() < 1e-4, "products are added in fp32"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_compiled(dtype: torch.dtype):
    hidden, table, target = tensors(700, 3000, 64, dtype)
    compiled = torch.compile(scalable_linear_cross_entropy, fullgraph=True)
    for mix_x in (False, True):
        losses = [
            function(hidden, table, target, **SIZES, mix_x=mix_x, seed=3)
            for function in (scalable_linear_cross_entropy, compiled)
        ]
        # fused sums round otherwise, which may move a row or item at the edge of a bucket
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-2, atol=1e-2)
        losses[1].backward()
