"""SASRec (Kang and McAuley, 2018, arXiv 1808.09781) with pre-norm blocks, as a PyTorch module."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recsys.sasrec_config import SASRecConfig

LAYER_NORM_EPS = 1e-6
INIT_STD = 0.02


class SASRec(nn.Module):
    """Causal transformer over item ids whose item table serves both as input and as output embedding.

    ``hidden = LayerNorm(blocks(dropout(sqrt(D) item_table[ids] + positions)))``; the score of item j after
    position l is ``hidden[b, l] . item_table[j]``.

    Inputs (B, L) integers, L <= max_length, items 0..V-1 and -1 for padding on the left. Returns (B, L, D)
    in the dtype of the computation (float32, or the autocast dtype up to the last norm). Positions are
    counted from the sequence's end, so left padding never changes a result. Outputs at padded places are
    finite and mean nothing. Raises ``ValueError`` for inputs of another rank or longer than max_length.
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.item_table = nn.Parameter(torch.empty(config.num_items, config.dim))
        self.position_table = nn.Parameter(torch.empty(config.max_length, config.dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config.dim, config.num_heads, config.dropout) for _ in range(config.num_blocks))
        self.final_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Matrices and tables from N(0, 0.02^2), biases 0, norms 1 (LayerNorm's own default)."""
        nn.init.normal_(self.item_table, std=INIT_STD)
        nn.init.normal_(self.position_table, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        length = inputs.shape[-1]
        if inputs.ndim != 2 or length > self.config.max_length:
            raise ValueError(f"inputs: expected shape (B, L) with L <= {self.config.max_length}, got {tuple(inputs.shape)}")
        valid = inputs >= 0
        # sqrt(D), as in the paper: without it the small initial item rows drown among positions and blocks.
        scale = valid[..., None] * math.sqrt(self.config.dim)
        items = F.embedding(inputs.clamp_min(0), self.item_table) * scale
        hidden = self.dropout(items + self.position_table[self.config.max_length - length :])
        mask = attention_mask(valid)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.final_norm(hidden)


class Block(nn.Module):
    """Pre-norm transformer block: ``x += dropout(attention(norm(x)))``, then ``x +=
    dropout(mlp(norm(x)))``."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = Attention(dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask))
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))


class Attention(nn.Module):
    """Multi-head self-attention without dropout on the probabilities (fused kernels of JAX offer none)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, length, dim = hidden.shape
        qkv = self.qkv(hidden).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
        return self.output(mixed.transpose(1, 2).reshape(batch, length, dim))


class FeedForward(nn.Module):
    """Position-wise D -> 4D -> D with the exact GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(hidden)))


def attention_mask(valid: Tensor) -> Tensor:
    """Returns the (B, L, L) boolean mask: place q sees k if k <= q and k is no padding, and always itself.

    A padded place sees itself so that no softmax row is empty (an empty row is NaN); nothing reads its
    output.
    """
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid.device)
    return (causal & valid[:, None, :]) | itself
