"""The tensors of a shape: hidden states, table, targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .shapes import Shape

TARGETS = ("uniform", "zipf")


@dataclass(frozen=True)
class Inputs:
    """hidden (N, D) and table (V, D) in bfloat16, target (N,) int64; none of them asks for a gradient."""

    shape: Shape
    hidden: Tensor
    table: Tensor
    target: Tensor


def make_inputs(shape: Shape, targets: str, device: str) -> Inputs:
    """Standard normal hidden states, a table of standard deviation D^-0.5, and targets drawn as ``targets`` says."""
    generator = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(shape.rows, shape.dim, device=device, generator=generator).bfloat16()
    table = torch.empty(shape.items, shape.dim, device=device, dtype=torch.bfloat16)
    table.normal_(0, shape.dim**-0.5, generator=generator)
    return Inputs(shape, hidden, table, _draw_targets(shape, targets, generator))


def _draw_targets(shape: Shape, targets: str, generator: torch.Generator) -> Tensor:
    device = generator.device
    if targets == "uniform":
        return torch.randint(0, shape.items, (shape.rows,), device=device, generator=generator)
    # Zipf: the r-th most popular item with probability proportional to 1 / r; popularity says nothing about the id
    cumulative = torch.arange(1, shape.items + 1, device=device, dtype=torch.float64).reciprocal_().cumsum(0)
    uniform = torch.rand(shape.rows, device=device, dtype=torch.float64, generator=generator)
    rank = torch.searchsorted(cumulative, uniform * cumulative[-1]).clamp_(max=shape.items - 1)
    return torch.randperm(shape.items, device=device, generator=generator)[rank]
