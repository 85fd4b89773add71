"""Users' sequences on the device, from which it gathers the batches of training."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ...recsys import IGNORE, MASK, PAD, Ragged


class Sequences(NamedTuple):
    """Rows of different lengths: ``values`` (events,) and ``offsets`` (rows + 1,), both int32."""

    values: Array
    offsets: Array

    @classmethod
    def of(cls, rows: Ragged) -> Sequences:
        """Moves ``rows``, of fewer than 2^31 events, to the device."""
        return cls(jnp.asarray(rows.values), jnp.asarray(rows.offsets.astype(np.int32)))

    def last_items(self, rows: Array, width: int) -> Array:
        """``recsys.last_items`` of ``rows`` (B,): (B, width) int32, padded on the left; all padding for row -1."""
        known = jnp.maximum(rows, 0)
        source = self.offsets[known + 1][:, None] + jnp.arange(-width, 0)
        present = (source >= self.offsets[known][:, None]) & (rows >= 0)[:, None]
        return jnp.where(present, self.values[jnp.maximum(source, 0)], PAD)

    def next_items(self, rows: Array, length: int) -> tuple[Array, Array]:
        """Inputs and targets (B, length) of a batch of ``recsys.train_batches``, whose users are ``rows``."""
        window = self.last_items(rows, length + 1)
        inputs = window[:, :-1]
        return inputs, jnp.where(inputs == PAD, IGNORE, window[:, 1:])

    def masked_items(self, rows: Array, masked: Array) -> tuple[Array, Array]:
        """Inputs and targets (B, L) of a batch of ``recsys.masked_batches``, with its masks (B, L) bool."""
        items = self.last_items(rows, masked.shape[1])
        return jnp.where(masked, MASK, items), jnp.where(masked, items, IGNORE)
