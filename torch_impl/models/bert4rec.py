"""BERT4Rec (Sun et al., 2019, arXiv 1904.06690) with pre-norm blocks, as a PyTorch module."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...kernels.draws.shard import Shard
from ...recsys import MASK
from ...recsys.run.model_config import ModelConfig
from .sequence_model import SequenceModel
from .transformer import INIT_STD, bidirectional_mask


class BERT4Rec(SequenceModel):
    """Bidirectional transformer over item ids, trained to find masked items again.

    Inputs are those of ``SequenceModel`` and -2 for a masked place, which holds ``sqrt(D) mask_vector`` instead of an
    item's row; every place sees every other that is no padding. The state at a masked place scores the items by the
    item rows, without the paper's output projection and bias, so that the losses are those of the other models.
    """

    name = "bert4rec"

    def __init__(self, config: ModelConfig, *, host_table: bool = False, shard: Shard | None = None) -> None:
        super().__init__(config, host_table=host_table, shard=shard)
        self.mask_vector = nn.Parameter(torch.empty(config.dim).normal_(std=INIT_STD))

    def next_item_hidden(self, inputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Returns the state (B, D) that scores the next item after the histories ``inputs`` (B, L), padded on the left:
        that of a masked place put behind their last max_length - 1 items."""
        self.check_inputs(inputs)
        kept = inputs[:, max(inputs.shape[1] + 1 - self.config.max_length, 0) :]
        masked = torch.cat([kept, torch.full_like(inputs[:, :1], MASK)], dim=1)
        return self(masked, rows, last_only=True)[:, -1]

    def embed(self, inputs: Tensor, rows: Tensor) -> Tensor:
        masked = (inputs == MASK)[..., None]
        return torch.where(masked, self.mask_vector * math.sqrt(self.config.dim), super().embed(inputs, rows))

    def attention_mask(self, inputs: Tensor) -> Tensor:
        return bidirectional_mask((inputs >= 0) | (inputs == MASK))
