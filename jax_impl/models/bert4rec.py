"""BERT4Rec (Sun et al., 2019, arXiv 1904.06690) with pre-norm blocks, as a Flax NNX module."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

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

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> None:
        super().__init__(config, rngs=rngs, dtype=dtype)
        self.mask_vector = nnx.Param(nnx.initializers.normal(INIT_STD)(rngs.params(), (config.dim,), jnp.float32))

    def next_item_hidden(self, inputs: Array, rows: Array | None = None) -> Array:
        """Returns the state (B, D) that scores the next item after the histories ``inputs`` (B, L), padded on the left:
        that of a masked place put behind their last max_length - 1 items."""
        self.check_inputs(inputs)
        first = max(inputs.shape[1] + 1 - self.config.max_length, 0)
        masked = jnp.concatenate([inputs[:, first:], jnp.full_like(inputs[:, :1], MASK)], axis=1)
        if rows is not None and rows.ndim == 3:
            rows = jnp.concatenate([rows[:, first:], jnp.zeros_like(rows[:, :1])], axis=1)
        return self(masked, rows, last_only=True)[:, -1]

    def embed(self, inputs: Array, rows: Array) -> Array:
        masked = (inputs == MASK)[..., None]
        return jnp.where(masked, self.mask_vector[...] * math.sqrt(self.config.dim), super().embed(inputs, rows))

    def attention_mask(self, inputs: Array) -> Array:
        return bidirectional_mask((inputs >= 0) | (inputs == MASK))
