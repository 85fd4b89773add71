"""The parts that sequence models are made of: attention, feed-forward, the pre-norm block and the masks of
attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6
INIT_STD = 0.02


class Block(nn.Module):
    """Pre-norm transformer block: ``x += dropout(attention(norm(x)))``, then ``x +=
    dropout(feed_forward(norm(x)))``, at the places that ``mask`` is about."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = Attention(dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        mixed = self.dropout(self.attention(self.attention_norm(hidden), mask))
        hidden = hidden[:, -mask.shape[1] :] + mixed
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))


class Attention(nn.Module):
    """Multi-head self-attention without dropout on the probabilities (fused kernels of JAX offer none).

    ``mask`` (B, Q, L) says what each of the last Q of L places sees; their results are (B, Q, D).
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, length, dim = hidden.shape
        qkv = self.qkv(hidden).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        places = mask.shape[1]
        mixed = F.scaled_dot_product_attention(query[:, :, -places:], key, value, attn_mask=mask[:, None])
        return self.output(mixed.transpose(1, 2).reshape(batch, places, dim))


class FeedForward(nn.Module):
    """Position-wise D -> 4D -> D with the exact GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(hidden)))


def causal_mask(valid: Tensor) -> Tensor:
    """Returns the (B, L, L) boolean mask: place q sees k if k <= q and k is no padding, and always itself.

    ``valid`` (B, L) bool is False at padding. A padded place sees itself so that no softmax row is empty (an empty row
    is NaN); nothing reads its output.
    """
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    return (causal & valid[:, None, :]) | _itself(valid)


def bidirectional_mask(valid: Tensor) -> Tensor:
    """Returns the (B, L, L) boolean mask: place q sees every k that is no padding, and always itself.

    ``valid`` (B, L) bool is False at padding.
    """
    return valid[:, None, :] | _itself(valid)


def _itself(valid: Tensor) -> Tensor:
    return torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
