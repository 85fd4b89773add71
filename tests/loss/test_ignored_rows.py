"""Ignored rows change nothing: work is split by the rows that count, as if the others were not there."""

from __future__ import annotations

import pytest
import torch
from cce_minus.kernels import AllItems, UniformNegatives
from cce_minus.torch_impl import sampled_linear_cross_entropy

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
ROWS, ITEMS = (
    (20000, 20000) if ON_GPU else (600, 8200)
)  # more tiles than run at a time, and walks long enough to be split

pytestmark = [] if ON_GPU else pytest.mark.interpreter


def results(hidden: torch.Tensor, table: torch.Tensor, target: torch.Tensor, sampler: AllItems | UniformNegatives):
    hidden, table = hidden.clone().requires_grad_(), table.clone().requires_grad_()
    loss, lse = sampled_linear_cross_entropy(
        hidden, table, target, sampler, seed=5, reduction="none", return_lse=True, impl="triton"
    )
    return loss, lse, *torch.autograd.grad((loss * 0.5 + lse * 0.1).sum(), (hidden, table))


@pytest.mark.parametrize("counted", [0, 1, 70, ROWS // 2, ROWS] if ON_GPU else [0, 70, ROWS // 2])
@pytest.mark.parametrize("sampler", [AllItems(), UniformNegatives(8190, 128)], ids=str)
def test_results_are_those_of_the_counted_rows_alone(sampler: AllItems | UniformNegatives, counted: int):
    generator = torch.Generator().manual_seed(counted)
    hidden, table = torch.randn(ROWS, 32, generator=generator), torch.randn(ITEMS, 32, generator=generator)
    target = torch.randint(ITEMS, (ROWS,), generator=generator)
    rows = torch.randperm(ROWS, generator=generator)[:counted].sort().values
    padded = torch.full_like(target, -100)
    padded[rows] = target[rows]
    hidden, table, target, padded, rows = (tensor.to(DEVICE) for tensor in (hidden, table, target, padded, rows))

    loss, lse, hidden_grad, table_grad = results(hidden, table, padded, sampler)
    alone = results(hidden[rows], table, target[rows], sampler)
    *found, found_table = loss[rows], lse[rows], hidden_grad[rows], table_grad
    *expected, expected_table = alone
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    if isinstance(sampler, AllItems):
        assert torch.equal(found_table, expected_table)
    else:  # where a block meets at most one group of the call's rows, other tiles add up its gradient
        assert (found_table - expected_table).norm() <= 1e-6 * expected_table.norm()
    ignored = padded == -100
    assert not any(tensor[ignored].any() for tensor in (loss, lse, hidden_grad))
