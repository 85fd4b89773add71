"""Rows that inputs embed, where some name none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding


def embedded(rows: Tensor, places: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(..., D) those of ``rows`` (T, D) that ``places`` (...) name, zeros of negative ones, in ``dtype``, by default
    the rows'; differentiable."""
    is_there = places >= 0
    if rows.requires_grad and len(rows):
        # What names none reads the rows in turn: torch adds up the gradients of one row one after the other, and zeros
        # of all the padding for a single row would take longer than everything else.
        others = torch.arange(places.numel(), device=places.device).remainder(len(rows)).view(places.shape)
        some = torch.where(is_there, places, others)
    else:
        some = places.clamp(min=0)
    return torch.where(is_there[..., None], embedding(some, rows).to(dtype or rows.dtype), 0.0)
