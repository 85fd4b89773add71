"""What the sequence models have in common, as a Flax NNX module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from ...recsys.run.model_config import ModelConfig
from ...recsys.run.side_information import SideInformation
from ...recsys.run.tensor_file import Stored, row_ranges
from ..stored import filled
from .transformer import INIT_STD, Block, causal_mask, layer_norm


class ItemFeatures(nnx.Variable):
    """Constant features of items: state that checkpoints and weights files hold, but no parameter."""


class SequenceModel(nnx.Module):
    """Transformer over item ids whose item rows serve both as input and as output embedding.

    ``hidden = LayerNorm(blocks(dropout(embed(inputs, rows) + positions)))``, ``embed(inputs, rows) = sqrt(D)
    rows[inputs]``; the score of item j at position l is ``hidden[b, l] . rows[j]``. It is causal unless a subclass
    overrides ``attention_mask`` and ``next_item_hidden``.

    ``rows = item_rows()`` (V, D) are ``item_table``, plus ``item_features @ feature_projection`` if
    ``config.num_features`` P > 0: the features (V, P) are constants, zeros until ``start_items``, the projection (P, D)
    is learned. A caller who needs the rows too computes them once and passes them on, or each input's own (B, L, D),
    zeros of padding.

    Inputs (B, L) integers, L <= max_length, items 0..V-1 and -1 for padding on the left. Returns (B, L, D) float32.
    ``dtype`` is the matrix products' (float32 means float32: no TF32 on GPU); parameters, residual stream and norms are
    float32 always. Dropout acts only when ``rngs`` is given, from its ``dropout`` stream. Positions are counted from
    the sequence's end, so left padding never changes a result. ``last_only`` gives the last place alone, (B, 1, D), and
    saves the last block the others. Outputs at padded places are finite and mean nothing.
    Raises ``ValueError`` for inputs of another rank or longer than max_length, and ``ConfigError`` for the
    configuration of another model.
    """

    name: ClassVar[str]
    """The model's name in a configuration."""

    block_type: ClassVar[Callable[..., nnx.Module]] = Block
    """Made from (dim, num_heads, dropout, dtype=, rngs=), called with hidden (B, L, D), mask (B, Q, L) and rngs, for
    (B, Q, D)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        config.require(self.name)
        self.config = config
        self.dtype = jnp.dtype(dtype)
        init = nnx.initializers.normal(INIT_STD)
        self.item_table = nnx.Param(start_table(rngs.params(), config))
        self.position_table = nnx.Param(init(rngs.params(), (config.max_length, config.dim), jnp.float32))
        self.dropout = nnx.Dropout(config.dropout)
        sizes = config.dim, config.num_heads, config.dropout
        self.blocks = nnx.List([self.block_type(*sizes, dtype=self.dtype, rngs=rngs) for _ in range(config.num_blocks)])
        self.final_norm = layer_norm(config.dim, rngs)
        p = config.num_features
        self.item_features = ItemFeatures(jnp.zeros((config.num_items, p))) if p else None
        self.feature_projection = nnx.Param(init(rngs.params(), (p, config.dim), jnp.float32)) if p else None

    def start_items(self, side: SideInformation) -> None:
        """Takes the features of ``side`` and, if it has initial rows, those in place of the item table's, at the
        standard deviation of its own."""
        if self.item_features is not None:
            self.item_features = ItemFeatures(filled(self.item_features[...], Stored.of(side.features)))
        if (initial := side.initial) is not None:

            def scaled() -> Iterator[np.ndarray]:
                for first, end in row_ranges(initial.shape, initial.itemsize):
                    yield initial[first:end] * np.float32(INIT_STD)

            self.item_table = nnx.Param(filled(self.item_table[...], Stored("float32", initial.shape, scaled)))

    def item_rows(self) -> Array:
        """Returns the embeddings (V, D) of all items: without features the table itself, float32 or bfloat16, else
        float32."""
        if self.item_features is None:
            return self.item_table[...]
        assert self.feature_projection is not None
        # float32 in any dtype of the model: the rows are part of the residual stream, and equal in all callers.
        return self.item_table[...] + jnp.matmul(
            self.item_features[...], self.feature_projection[...], precision="highest"
        )

    def with_features(self, rows: Array, ids: Array) -> Array:
        """Returns ``rows`` (T, D) of the item table with the features of the items ``ids`` (T,): their item rows."""
        if self.item_features is None:
            return rows
        assert self.feature_projection is not None
        features = self.item_features[...].at[ids].get(mode="clip")
        return rows + jnp.matmul(features, self.feature_projection[...], precision="highest")

    def __call__(
        self, inputs: Array, rows: Array | None = None, *, rngs: nnx.Rngs | None = None, last_only: bool = False
    ) -> Array:
        self.check_inputs(inputs)
        rows = self.item_rows() if rows is None else rows
        positions = self.position_table[self.config.max_length - inputs.shape[1] :]
        hidden = self.dropout(self.embed(inputs, rows) + positions, deterministic=rngs is None, rngs=rngs)
        mask = self.attention_mask(inputs)
        with jax.default_matmul_precision("highest" if self.dtype == jnp.float32 else "default"):
            for number, block in enumerate(self.blocks, start=1):
                is_last = number == len(self.blocks)
                hidden = block(hidden, mask[:, -1:] if last_only and is_last else mask, rngs)
        return self.final_norm(hidden)

    def next_item_hidden(self, inputs: Array, rows: Array | None = None) -> Array:
        """Returns the state (B, D) that scores the next item after the histories ``inputs`` (B, L), padded on the left:
        the last place's."""
        return self(inputs, rows, last_only=True)[:, -1]

    def embed(self, inputs: Array, rows: Array) -> Array:
        """Returns sqrt(D) times those of ``rows`` (V, D) that ``inputs`` (B, L) name, (B, L, D), zeros for negative
        ids; or times ``rows`` (B, L, D) as they are."""
        if rows.ndim == 2:
            # Out-of-range ids read 0 and, in the backward pass, are dropped: padding costs no scatter to a real row.
            ids = jnp.where(inputs >= 0, inputs, len(rows))
            rows = rows.at[ids].get(mode="fill", fill_value=0)
        # sqrt(D), as in SASRec's paper: without it the small initial item rows drown among positions and blocks.
        return rows.astype(jnp.float32) * math.sqrt(self.config.dim)

    def attention_mask(self, inputs: Array) -> Array:
        """Returns the (B, L, L) boolean mask of what each place of ``inputs`` (B, L) sees."""
        return causal_mask(inputs >= 0)

    def check_inputs(self, inputs: Array) -> None:
        """Raises ``ValueError`` unless ``inputs`` are (B, L) with L <= max_length."""
        if inputs.ndim != 2 or inputs.shape[1] > self.config.max_length:
            raise ValueError(f"inputs: expected shape (B, L) with L <= {self.config.max_length}, got {inputs.shape}")


@partial(jax.jit, static_argnames="config")
def start_table(key: Array, config: ModelConfig) -> Array:
    """An item table (V, D), by one program, in which no float32 copy of a bfloat16 table is made."""
    table = nnx.initializers.normal(INIT_STD)(key, (config.num_items, config.dim), jnp.float32)
    return table.astype(jnp.bfloat16 if config.table_dtype == "bf16" else jnp.float32)
