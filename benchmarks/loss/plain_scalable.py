"""Scalable cross-entropy (SCE, arXiv 2409.18721) as one writes it in PyTorch, step by step as its authors' code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .provider import Loss, Provider
from .providers_losses import bucket_candidates, bucket_sizes
from .shapes import Shape


def draw_centres(hidden: Tensor, n_buckets: int, mix_x: bool) -> Tensor:
    """The centres (n_buckets, D) in the dtype of hidden (N, D): normals, or mixtures of the rows by normals."""
    num_rows, dim = hidden.shape
    shape = (n_buckets, num_rows) if mix_x else (n_buckets, dim)
    normals = (torch.randn(shape, device=hidden.device) / dim**0.25).to(hidden.dtype)
    return normals @ hidden.detach() if mix_x else normals


def _vectors(matrix: Tensor, places: Tensor) -> Tensor:
    """The rows of matrix (M, D) at places (B, S): (B, S, D)."""
    return matrix.gather(0, places.reshape(-1, 1).expand(-1, matrix.shape[1])).view(*places.shape, -1)


def bucket_loss(hidden: Tensor, table: Tensor, target: Tensor, centres: Tensor, size_x: int, size_y: int) -> Tensor:
    """The mean over the rows in a bucket of their largest loss, each against the items of one bucket."""
    with torch.no_grad():
        rows = (centres @ hidden.T).topk(size_x).indices
        items = (centres @ table.T).topk(size_y).indices
    logits = torch.bmm(_vectors(hidden, rows), _vectors(table, items).transpose(1, 2)).float()
    logits = logits.masked_fill(target[rows][:, :, None] == items[:, None, :], -math.inf)
    positive = (hidden * table.index_select(0, target)).sum(1).float()[rows]
    logits = torch.cat([logits, positive[:, :, None]], 2).flatten(0, 1)
    last = torch.full((len(logits),), size_y, device=hidden.device)
    losses = torch.nn.functional.cross_entropy(logits, last, reduction="none")
    largest = torch.zeros(len(hidden), device=hidden.device).scatter_reduce(0, rows.flatten(), losses, "amax")
    return largest.sum() / (largest != 0).sum()  # its authors index by the mask, which waits for the device


def _loss(mix_x: bool) -> Loss:
    def loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
        n_buckets, size_x, size_y = bucket_sizes(len(hidden)).values()
        return bucket_loss(hidden, table, target, draw_centres(hidden, n_buckets, mix_x), size_x, size_y)

    return loss


def _least_extra(shape: Shape) -> int:
    """The products with every item in 2 bytes, and about four numbers a logit in 4."""
    n_buckets, size_x, size_y = bucket_sizes(shape.rows).values()
    return n_buckets * (2 * shape.items + 16 * size_x * size_y)


def plain_providers() -> list[Provider]:
    """The gate has nothing to compare: the centres are drawn by torch. Tests compare the same function with the
    project's."""
    losses = {
        "plain PyTorch SCE": _loss(False),
        "plain PyTorch SCE, mixed centres": _loss(True),
        "plain PyTorch SCE, torch.compile": torch.compile(_loss(False), fullgraph=True),
    }
    return [
        Provider(name, "torch", False, loss, least_extra=_least_extra, losses=True, candidates=bucket_candidates)
        for name, loss in losses.items()
    ]
