"""K >= V and AllItems are full softmax cross-entropy."""

from __future__ import annotations

import pytest
import torch
from cce_minus.torch_impl import AllItems, UniformNegatives, linear_cross_entropy, sampled_linear_cross_entropy

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=() if ON_GPU else pytest.mark.interpreter)])
@pytest.mark.parametrize(
    "sampler",
    [
        AllItems(),
        UniformNegatives(301),
        UniformNegatives(301, 1),
        UniformNegatives(1000, 16),
        UniformNegatives(301, 256),
        None,
    ],
    ids=str,
)
def test_equals_torch_cross_entropy(sampler, impl: str):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(70, 48, generator=generator).to(DEVICE).requires_grad_()
    table = torch.randn(301, 48, generator=generator).to(DEVICE).requires_grad_()
    bias = torch.randn(301, generator=generator)
    bias[::3] = -torch.inf  # masked out, as F.cross_entropy has it
    bias = bias.to(DEVICE).requires_grad_()
    target = torch.randint(0, 100, (70,), generator=generator).to(DEVICE) * 3 + 1
    target[3] = -100
    loss = (
        linear_cross_entropy(hidden, table, target, linear_bias=bias, impl=impl)
        if sampler is None
        else sampled_linear_cross_entropy(hidden, table, target, sampler, linear_bias=bias, seed=3, impl=impl)
    )
    grads = torch.autograd.grad(loss, (hidden, table, bias))
    exact = [t.detach().double().requires_grad_() for t in (hidden, table, bias)]
    expected = torch.nn.functional.cross_entropy(exact[0] @ exact[1].T + exact[2], target)
    for got, want in zip((loss, *grads), (expected, *torch.autograd.grad(expected, exact)), strict=True):
        assert (got.double() - want).norm() <= 1e-6 * want.norm()
