"""Item gradients of groups' lists whose partial sums don't fit in memory at once: some columns after the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cce_minus.kernels import InBatchNegatives, LogUniformNegatives, MixedNegatives, UniformNegatives
from cce_minus.kernels.launch import bindings
from cce_minus.kernels.launch import loss as launch
from cce_minus.kernels.plan import listed, problem, tiled
from cce_minus.kernels.plan.problem import Problem
from cce_minus.torch_impl import sampled_linear_cross_entropy
from cce_minus.torch_impl.loss import known_calls

pytestmark = pytest.mark.interpreter
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
V, G = 60, 16
SAMPLERS = {
    "log_uniform": LogUniformNegatives(200, G),
    "mixed": MixedNegatives(UniformNegatives(50, G), InBatchNegatives(G)),
}


@pytest.fixture
def few_columns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One block of columns at a time; what is cached was planned for more of them."""
    planned = (
        problem.cached_problem,
        launch.forward_program,
        launch.backward_program,
        bindings.bindings,
        bindings.tile_bindings,
        bindings.table_parts,
        known_calls._plan,
    )
    for cached in planned:
        cached.cache_clear()
    monkeypatch.setattr(listed, "LIST_BYTES", 1)
    for module in (listed, tiled):
        monkeypatch.setattr(module, "LIST_BLOCK", 32)
    yield
    for cached in planned:
        cached.cache_clear()


@pytest.mark.usefixtures("few_columns")
@pytest.mark.parametrize("name", SAMPLERS)
def test_several_passes(name: str, monkeypatch: pytest.MonkeyPatch):
    """Most of the few items come in several passes, and some are targets as well."""
    generator = torch.Generator().manual_seed(1)
    hidden, table, bias = (torch.randn(*shape, generator=generator) for shape in ((40, 20), (V, 20), (V,)))
    target = torch.randint(0, V, (40,), generator=generator)
    leaves = [array.to(DEVICE).requires_grad_() for array in (hidden, table, bias)]
    options: dict[str, Any] = {} if name == "log_uniform" else {"log_q": torch.full((V,), -4.0, device=DEVICE)}
    passes = []

    def plan(p: Problem, *args: Any) -> Any:
        assert p.listed is not None
        passes.append(p.listed.passes)
        return program(p, *args)

    program = launch.backward_program
    monkeypatch.setattr(launch, "backward_program", plan)
    results = []
    for impl in ("triton", "reference"):
        loss = sampled_linear_cross_entropy(
            leaves[0], leaves[1], target.to(DEVICE), SAMPLERS[name], seed=3, linear_bias=leaves[2], impl=impl, **options
        )
        assert isinstance(loss, torch.Tensor)
        results.append(torch.autograd.grad(loss, leaves))
    assert passes == [{"log_uniform": 7, "mixed": 3}[name]]
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)
