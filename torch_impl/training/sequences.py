"""Users' sequences on the device, from which it gathers the batches of training."""

from __future__ import annotations

import torch
from torch import Tensor

from ...recsys import IGNORE, MASK, PAD, Ragged


class Sequences:
    """Rows of different lengths on ``device``: ``values`` (events,) int32 and ``offsets`` (rows + 1,) int64."""

    def __init__(self, rows: Ragged, device: torch.device) -> None:
        self.values, self.offsets = (torch.from_numpy(array).to(device) for array in (rows.values, rows.offsets))

    def last_items(self, rows: Tensor, width: int) -> Tensor:
        """``recsys.last_items`` of ``rows`` (B,): (B, width) int32, padded on the left; all padding for row -1."""
        known = rows.clamp_min(0).long()
        source = self.offsets[known + 1][:, None] + torch.arange(-width, 0, device=rows.device)
        present = (source >= self.offsets[known][:, None]) & (rows >= 0)[:, None]
        return torch.where(present, self.values[source.clamp_min(0)], PAD)

    def next_items(self, rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, length) of a batch of ``recsys.train_batches``, whose users are ``rows``."""
        window = self.last_items(rows, length + 1)
        inputs = window[:, :-1].contiguous()
        return inputs, torch.where(inputs == PAD, IGNORE, window[:, 1:])

    def masked_items(self, rows: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, L) of a batch of ``recsys.masked_batches``, with its masks (B, L) bool."""
        items = self.last_items(rows, masked.shape[1])
        return torch.where(masked, MASK, items), torch.where(masked, items, IGNORE)
