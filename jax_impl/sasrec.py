"""SASRec (Kang and McAuley, 2018, arXiv 1808.09781) with pre-norm blocks, as a Flax NNX module."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from ..recsys.sasrec_config import SASRecConfig

LAYER_NORM_EPS = 1e-6
INIT_STD = 0.02


class SASRec(nnx.Module):
    """Causal transformer over item ids whose item table serves both as input and as output embedding.

    ``hidden = LayerNorm(blocks(dropout(sqrt(D) item_table[ids] + positions)))``; the score of item j after
    position l is ``hidden[b, l] . item_table[j]``.

    Inputs (B, L) integers, L <= max_length, items 0..V-1 and -1 for padding on the left. Returns (B, L, D)
    float32. ``dtype`` is the matrix products' (float32 means float32: no TF32 on GPU); parameters, residual
    stream and norms are float32 always. Dropout acts only when ``rngs`` is given, from its ``dropout``
    stream. Positions are counted from the sequence's end, so left padding never changes a result. Outputs
    at padded places are finite and mean nothing. Raises ``ValueError`` for inputs of another rank or longer
    than max_length.
    """

    def __init__(self, config: SASRecConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        self.config = config
        self.dtype = jnp.dtype(dtype)
        init = nnx.initializers.normal(INIT_STD)
        self.item_table = nnx.Param(init(rngs.params(), (config.num_items, config.dim), jnp.float32))
        self.position_table = nnx.Param(init(rngs.params(), (config.max_length, config.dim), jnp.float32))
        self.dropout = nnx.Dropout(config.dropout)
        self.blocks = nnx.List(
            [Block(config.dim, config.num_heads, config.dropout, dtype=self.dtype, rngs=rngs) for _ in range(config.num_blocks)]
        )
        self.final_norm = layer_norm(config.dim, rngs)

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        length = inputs.shape[-1]
        if inputs.ndim != 2 or length > self.config.max_length:
            raise ValueError(f"inputs: expected shape (B, L) with L <= {self.config.max_length}, got {inputs.shape}")
        valid = inputs >= 0
        # Out-of-range ids read 0 and, in the backward pass, are dropped: padding costs no scatter to a real
        # row.
        ids = jnp.where(valid, inputs, self.config.num_items)
        items = self.item_table[...].at[ids].get(mode="fill", fill_value=0)
        # sqrt(D), as in the paper: without it the small initial item rows drown among positions and blocks.
        items = items * math.sqrt(self.config.dim)
        positions = self.position_table[self.config.max_length - length :]
        hidden = self.dropout(items + positions, deterministic=rngs is None, rngs=rngs)
        mask = attention_mask(valid)
        with jax.default_matmul_precision("highest" if self.dtype == jnp.float32 else "default"):
            for block in self.blocks:
                hidden = block(hidden, mask, rngs)
        return self.final_norm(hidden)


class Block(nnx.Module):
    """Pre-norm transformer block: ``x += dropout(attention(norm(x)))``, then ``x +=
    dropout(mlp(norm(x)))``."""

    def __init__(self, dim: int, num_heads: int, dropout: float, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.attention_norm = layer_norm(dim, rngs)
        self.attention = Attention(dim, num_heads, dtype=dtype, rngs=rngs)
        self.feed_forward_norm = layer_norm(dim, rngs)
        self.feed_forward = FeedForward(dim, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, hidden: Array, mask: Array, rngs: nnx.Rngs | None) -> Array:
        mixed = self.attention(self.attention_norm(hidden), mask)
        hidden = hidden + self.dropout(mixed, deterministic=rngs is None, rngs=rngs)
        mapped = self.feed_forward(self.feed_forward_norm(hidden))
        return hidden + self.dropout(mapped, deterministic=rngs is None, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention without dropout on the probabilities (fused kernels of JAX offer none)."""

    def __init__(self, dim: int, num_heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.num_heads = num_heads
        self.qkv = linear(dim, 3 * dim, dtype, rngs)
        self.output = linear(dim, dim, dtype, rngs)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        batch, length, dim = hidden.shape
        qkv = self.qkv(hidden).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None])
        return self.output(mixed.reshape(batch, length, dim))


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


def attention_mask(valid: Array) -> Array:
    """Returns the (B, L, L) boolean mask: place q sees k if k <= q and k is no padding, and always itself.

    A padded place sees itself so that no softmax row is empty; nothing reads its output.
    """
    length = valid.shape[1]
    causal = jnp.tril(jnp.ones((length, length), dtype=bool))
    return (causal & valid[:, None, :]) | jnp.eye(length, dtype=bool)
