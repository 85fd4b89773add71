"""The parts that sequence models are made of: attention, feed-forward, the pre-norm block and the masks of
attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

LAYER_NORM_EPS = 1e-6
INIT_STD = 0.02


class Block(nnx.Module):
    """Pre-norm transformer block: ``x += dropout(attention(norm(x)))``, then ``x +=
    dropout(feed_forward(norm(x)))``, at the places that ``mask`` is about."""

    def __init__(self, dim: int, num_heads: int, dropout: float, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.attention_norm = layer_norm(dim, rngs)
        self.attention = Attention(dim, num_heads, dtype=dtype, rngs=rngs)
        self.feed_forward_norm = layer_norm(dim, rngs)
        self.feed_forward = FeedForward(dim, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden: Array, mask: Array, rngs: nnx.Rngs | None) -> Array:
        mixed = self.attention(self.attention_norm(hidden), mask)
        hidden = hidden[:, -mask.shape[1] :] + self.dropout(mixed, deterministic=rngs is None, rngs=rngs)
        mapped = self.feed_forward(self.feed_forward_norm(hidden))
        return hidden + self.dropout(mapped, deterministic=rngs is None, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention without dropout on the probabilities (fused kernels of JAX offer none).

    ``mask`` (B, Q, L) says what each of the last Q of L places sees; their results are (B, Q, D).
    """

    def __init__(self, dim: int, num_heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.num_heads = num_heads
        self.qkv = linear(dim, 3 * dim, dtype, rngs)
        self.output = linear(dim, dim, dtype, rngs)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        batch, length, dim = hidden.shape
        qkv = self.qkv(hidden).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        places = mask.shape[1]
        mixed = jax.nn.dot_product_attention(query[:, -places:], key, value, mask=mask[:, None])
        return self.output(mixed.reshape(batch, places, dim))


class FeedForward(nnx.Module):
    """Position-wise D -> 4D -> D with the exact GELU."""

    def __init__(self, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.expand = linear(dim, 4 * dim, dtype, rngs)
        self.contract = linear(4 * dim, dim, dtype, rngs)

    def __call__(self, hidden: Array) -> Array:
        return self.contract(jax.nn.gelu(self.expand(hidden), approximate=False))


def linear(inputs: int, outputs: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer with weights from N(0, 0.02^2) and zero biases."""
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(INIT_STD), dtype=jnp.dtype(dtype), rngs=rngs)


def layer_norm(dim: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A float32 LayerNorm with the two-pass variance, which is what PyTorch computes."""
    return nnx.LayerNorm(dim, epsilon=LAYER_NORM_EPS, dtype=jnp.dtype(jnp.float32), use_fast_variance=False, rngs=rngs)


def causal_mask(valid: Array) -> Array:
    """Returns the (B, L, L) boolean mask: place q sees k if k <= q and k is no padding, and always itself.

    ``valid`` (B, L) bool is False at padding. A padded place sees itself so that no softmax row is empty; nothing reads
    its output.
    """
    length = valid.shape[1]
    causal = jnp.tril(jnp.ones((length, length), dtype=bool))
    return (causal & valid[:, None, :]) | jnp.eye(length, dtype=bool)


def bidirectional_mask(valid: Array) -> Array:
    """Returns the (B, L, L) boolean mask: place q sees every k that is no padding, and always itself.

    ``valid`` (B, L) bool is False at padding.
    """
    return valid[:, None, :] | jnp.eye(valid.shape[1], dtype=bool)
