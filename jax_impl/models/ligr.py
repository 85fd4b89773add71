"""A causal transformer of LiGR blocks (Borisyuk et al., 2025, arXiv 2502.03417; as in eSASRec, arXiv 2508.06450), as a
Flax NNX module."""

from __future__ import annotations

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from .sequence_model import SequenceModel
from .transformer import Attention, layer_norm, linear


class GatedBlock(nnx.Module):
    """Pre-norm block whose residual branches are gated by the stream that they are added to:

    ``x += sigmoid(attention_gate(x)) * dropout(attention(norm(x)))``, then ``x += sigmoid(feed_forward_gate(x)) *
    dropout(feed_forward(norm(x)))``, at the places that ``mask`` is about; the gates are D -> D.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.attention_norm = layer_norm(dim, rngs)
        self.attention = Attention(dim, num_heads, dtype=dtype, rngs=rngs)
        self.attention_gate = linear(dim, dim, dtype, rngs)
        self.feed_forward_norm = layer_norm(dim, rngs)
        self.feed_forward = SwiGLU(dim, dtype=dtype, rngs=rngs)
        self.feed_forward_gate = linear(dim, dim, dtype, rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden: Array, mask: Array, rngs: nnx.Rngs | None) -> Array:
        mixed = self.dropout(self.attention(self.attention_norm(hidden), mask), deterministic=rngs is None, rngs=rngs)
        hidden = hidden[:, -mask.shape[1] :]
        hidden = hidden + jax.nn.sigmoid(self.attention_gate(hidden)) * mixed
        mapped = self.dropout(self.feed_forward(self.feed_forward_norm(hidden)), deterministic=rngs is None, rngs=rngs)
        return hidden + jax.nn.sigmoid(self.feed_forward_gate(hidden)) * mapped


class SwiGLU(nnx.Module):
    """Position-wise ``contract(silu(gate(x)) * expand(x))``, D -> 4D -> D (Shazeer, 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.gate = linear(dim, 4 * dim, dtype, rngs)
        self.expand = linear(dim, 4 * dim, dtype, rngs)
        self.contract = linear(4 * dim, dim, dtype, rngs)

    def __call__(self, hidden: Array) -> Array:
        return self.contract(jax.nn.silu(self.gate(hidden)) * self.expand(hidden))


class LiGR(SequenceModel):
    """Causal transformer over item ids: ``SequenceModel`` with ``GatedBlock``."""

    name = "ligr"
    block_type = GatedBlock
