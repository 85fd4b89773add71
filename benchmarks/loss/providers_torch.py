"""This project's loss and its plain counterparts in PyTorch."""

from __future__ import annotations

import math

import numpy as np
import torch
from cce_minus import torch_impl
from cce_minus.kernels import UniformNegatives, negative_ids
from torch import Tensor

from .provider import Ids, Loss, Provider, gathered_bytes
from .shapes import GROUP, Shape


def draw_uniform(rows: int, negatives: int, items: int, seed: int | None, device: torch.device | str) -> Tensor:
    """(rows, negatives) int64 ids, each uniform over the items; of the default generator without a seed."""
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    return torch.randint(0, items, (rows, negatives), device=device, generator=generator)


def uniform_ids(shape: Shape, seed: int, device: str) -> np.ndarray:
    """What ``draw_uniform`` draws: devices differ."""
    return draw_uniform(shape.rows, shape.negatives, shape.items, seed, device).cpu().numpy()


def sampler_ids(group_size: int) -> Ids:
    def ids(shape: Shape, seed: int, device: str) -> np.ndarray:
        return negative_ids(
            UniformNegatives(shape.negatives, group_size), num_rows=shape.rows, num_items=shape.items, seed=seed
        )

    return ids


def every_item(shape: Shape, seed: int, device: str) -> None:
    """The ids of full cross-entropy."""


def eager_loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None = None) -> Tensor:
    """CE- as one writes it in PyTorch: uniform ids, gathered rows, hits masked, cross-entropy over K + 1 logits."""
    num_items = len(table)
    ids = draw_uniform(len(hidden), negatives, num_items, seed, hidden.device)
    logits = torch.einsum("nd,nkd->nk", hidden, table[ids]).float()
    hits = ids == target[:, None]
    kept = (~hits).sum(1, keepdim=True)
    logits = (logits + torch.log((num_items - 1) / kept)).masked_fill(hits, -math.inf)
    positive = (hidden * table[target]).sum(1, keepdim=True).float()
    return torch.nn.functional.cross_entropy(torch.cat([positive, logits], 1), torch.zeros_like(target))


def _sampled(group_size: int) -> Loss:
    def loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
        return torch_impl.sampled_linear_cross_entropy(
            hidden, table, target, UniformNegatives(negatives, group_size), seed=seed
        )

    return loss


def _all_items(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
    return torch_impl.linear_cross_entropy(hidden, table, target)


def torch_providers() -> list[Provider]:
    """Ours first: what they capture cannot fail, which would leave the process's random numbers in doubt."""
    return [
        Provider("cce-minus grouped", "torch", False, _sampled(GROUP), sampler_ids(GROUP), ours=True),
        Provider("cce-minus independent", "torch", False, _sampled(1), sampler_ids(1), ours=True),
        Provider("cce-minus all items", "torch", True, _all_items, every_item, ours=True),
        Provider("PyTorch eager", "torch", False, eager_loss, uniform_ids, least_extra=gathered_bytes),
        # the compiler draws its own numbers, so the gate sees the same function uncompiled
        Provider(
            "torch.compile", "torch", False, torch.compile(eager_loss, fullgraph=True), least_extra=gathered_bytes
        ),
    ]
