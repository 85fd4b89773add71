"""A causal transformer of LiGR blocks (Borisyuk et al., 2025, arXiv 2502.03417; as in eSASRec, arXiv 2508.06450), as a
PyTorch module."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .sequence_model import SequenceModel
from .transformer import LAYER_NORM_EPS, Attention


class GatedBlock(nn.Module):
    """Pre-norm block whose residual branches are gated by the stream that they are added to:

    ``x += sigmoid(attention_gate(x)) * dropout(attention(norm(x)))``, then ``x += sigmoid(feed_forward_gate(x)) *
    dropout(feed_forward(norm(x)))``, at the places that ``mask`` is about; the gates are D -> D.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = Attention(dim, num_heads)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feed_forward = SwiGLU(dim)
        self.feed_forward_gate = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        mixed = self.dropout(self.attention(self.attention_norm(hidden), mask))
        hidden = hidden[:, -mask.shape[1] :]
        hidden = hidden + F.sigmoid(self.attention_gate(hidden)) * mixed
        mapped = self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        return hidden + F.sigmoid(self.feed_forward_gate(hidden)) * mapped


class SwiGLU(nn.Module):
    """Position-wise ``contract(silu(gate(x)) * expand(x))``, D -> 4D -> D (Shazeer, 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 4 * dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(F.silu(self.gate(hidden)) * self.expand(hidden))


class LiGR(SequenceModel):
    """Causal transformer over item ids: ``SequenceModel`` with ``GatedBlock``."""

    name = "ligr"
    block_type = GatedBlock
