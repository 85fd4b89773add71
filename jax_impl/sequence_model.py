"""What the sequence models have in common, as a Flax NNX module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from ..recsys.model_config import ModelConfig
from .transformer import INIT_STD, Block, causal_mask, layer_norm


class SequenceModel(nnx.Module):
    """Transformer over item ids whose item table serves both as input and as output embedding.

    ``hidden = LayerNorm(blocks(dropout(embed(inputs) + positions)))``, ``embed(inputs) = sqrt(D)
    item_table[inputs]``; the score of item j at position l is ``hidden[b, l] . item_table[j]``. It is causal
    unless a subclass overrides ``attention_mask`` and ``next_item_hidden``.

    Inputs (B, L) integers, L <= max_length, items 0..V-1 and -1 for padding on the left. Returns (B, L, D)
    float32. ``dtype`` is the matrix products' (float32 means float32: no TF32 on GPU); parameters, residual
    stream and norms are float32 always. Dropout acts only when ``rngs`` is given, from its ``dropout``
    stream. Positions are counted from the sequence's end, so left padding never changes a result. Outputs
    at padded places are finite and mean nothing. Raises ``ValueError`` for inputs of another rank or longer
    than max_length, and ``ConfigError`` for the configuration of another model.
    """

    name: ClassVar[str]
    """The model's name in a configuration."""

    block_type: ClassVar[Callable[..., nnx.Module]] = Block
    """Made from (dim, num_heads, dropout, dtype=, rngs=), called with hidden (B, L, D), mask (B, L, L) and rngs."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        config.require(self.name)
        self.config = config
        self.dtype = jnp.dtype(dtype)
        init = nnx.initializers.normal(INIT_STD)
        self.item_table = nnx.Param(init(rngs.params(), (config.num_items, config.dim), jnp.float32))
        self.position_table = nnx.Param(init(rngs.params(), (config.max_length, config.dim), jnp.float32))
        self.dropout = nnx.Dropout(config.dropout)
        sizes = config.dim, config.num_heads, config.dropout
        self.blocks = nnx.List([self.block_type(*sizes, dtype=self.dtype, rngs=rngs) for _ in range(config.num_blocks)])
        self.final_norm = layer_norm(config.dim, rngs)

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        self.check_inputs(inputs)
        positions = self.position_table[self.config.max_length - inputs.shape[1] :]
        hidden = self.dropout(self.embed(inputs) + positions, deterministic=rngs is None, rngs=rngs)
        mask = self.attention_mask(inputs)
        with jax.default_matmul_precision("highest" if self.dtype == jnp.float32 else "default"):
            for block in self.blocks:
                hidden = block(hidden, mask, rngs)
        return self.final_norm(hidden)

    def next_item_hidden(self, inputs: Array) -> Array:
        """Returns the state (B, D) that scores the next item after the histories ``inputs`` (B, L), padded on
        the left: the last place's."""
        return self(inputs)[:, -1]

    def embed(self, inputs: Array) -> Array:
        """Returns the item rows (B, L, D) of ``inputs`` (B, L), zeros for negative ids."""
        # Out-of-range ids read 0 and, in the backward pass, are dropped: padding costs no scatter to a real
        # row.
        ids = jnp.where(inputs >= 0, inputs, self.config.num_items)
        items = self.item_table[...].at[ids].get(mode="fill", fill_value=0)
        # sqrt(D), as in SASRec's paper: without it the small initial item rows drown among positions and blocks.
        return items * math.sqrt(self.config.dim)

    def attention_mask(self, inputs: Array) -> Array:
        """Returns the (B, L, L) boolean mask of what each place of ``inputs`` (B, L) sees."""
        return causal_mask(inputs >= 0)

    def check_inputs(self, inputs: Array) -> None:
        """Raises ``ValueError`` unless ``inputs`` are (B, L) with L <= max_length."""
        if inputs.ndim != 2 or inputs.shape[1] > self.config.max_length:
            raise ValueError(f"inputs: expected shape (B, L) with L <= {self.config.max_length}, got {inputs.shape}")
