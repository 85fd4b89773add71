"""What each kernel draws, read off its own item gradient, against ``negative_ids``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cce_minus.kernels import UniformNegatives, negative_ids
from cce_minus.torch_impl import sampled_linear_cross_entropy

ON_GPU = torch.cuda.is_available()

# (sampler, V, why)
DRAWS = [
    (UniformNegatives(20, 1), 97, "independent"),
    (UniformNegatives(70, 1), 601, "independent, two strata"),
    (UniformNegatives(60, 1), 97, "independent, membership mask"),
    (UniformNegatives(20, 16), 97, "grouped"),
    (UniformNegatives(71, 16), 300, "grouped, two slots, the last cut"),
    (UniformNegatives(20, 32, shuffle_rows=False), 97, "grouped in order"),
    (UniformNegatives(130, 16), 131, "grouped, the first K positions"),
    (UniformNegatives(97, 16), 97, "every item"),
]


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=() if ON_GPU else pytest.mark.interpreter)])
@pytest.mark.parametrize(("sampler", "num_items", "why"), DRAWS, ids=[why for *_, why in DRAWS])
def test_ids_recovered_from_the_item_gradient(sampler: UniformNegatives, num_items: int, why: str, impl: str):
    """Row n's hidden state is the n-th unit vector, so that column n of the item gradient is nonzero where row n
    drew."""
    num_rows, seed = 40, -7
    device = "cuda" if ON_GPU else "cpu"
    target = torch.randint(0, num_items, (num_rows,), generator=torch.Generator().manual_seed(0))
    target[::5] = -100
    table = torch.zeros(num_items, num_rows, device=device, requires_grad=True)
    sampled_linear_cross_entropy(
        torch.eye(num_rows, device=device), table, target.to(device), sampler, reduction="sum", seed=seed, impl=impl
    ).backward()
    assert table.grad is not None
    touched = (table.grad != 0).T.cpu().numpy()
    counted = np.flatnonzero(target.numpy() != -100)
    ids = negative_ids(sampler, num_rows=len(counted), num_items=num_items, seed=seed)
    expected = np.zeros_like(touched)
    for row, drawn in zip(counted, ids, strict=True):
        expected[row, drawn] = True
        expected[row, target[row]] = True  # the positive; drawn as a negative too, it is dropped
    assert (touched == expected).all(), np.argwhere(touched != expected)[:5]
