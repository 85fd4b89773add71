"""Seeds: what a draw follows from, as the two words that every implementation reads."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ...kernels.draws.permutation import MASK, fold_words
from ...kernels.draws.permutation import seed_words as words_of_int
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from .candidates import arithmetic

EXPECTED = "an int, an integer array of 1 or 2 elements, or a PRNG key"


def _words_of_key(data: Array) -> tuple[Array, Array]:
    """The words of a key's data (high, low, further ones mixed in)."""
    words = data.reshape(-1)
    seed = words[0], words[1]
    for word in words[2:]:
        seed = fold_words(arithmetic(), seed, word)
    return seed


def _words_of_array(seed: Any) -> tuple[Array, Array]:
    if seed.size not in (1, 2):
        raise ArgumentValueError("seed", "an array of 1 or 2 elements", seed.shape)
    values = seed.reshape(-1)
    if seed.size == 2:
        return values[0].astype(jnp.uint32), values[1].astype(jnp.uint32)
    (value,) = values
    if value.dtype.itemsize == 8:
        return (value >> 32).astype(jnp.uint32), value.astype(jnp.uint32)
    return jnp.where(value < 0, jnp.uint32(MASK), jnp.uint32(0)), value.astype(jnp.uint32)


def seed_words(seed: object) -> Array:
    """A seed as two int32 words (low, high).

    ``seed`` is an int, an array of one integer, one of two integers taken as 32-bit words (high, low), all
    modulo 2^64, or a PRNG key of ``jax.random``: its data's words (high, low), with any further words mixed
    in. ``jax.random.key(5)`` draws as 5 does. Raises ArgumentTypeError or ArgumentValueError; None too, as
    JAX has no default generator.
    """
    if seed is None:
        raise ArgumentTypeError("seed", f"{EXPECTED} (a draw needs one)", None)
    if not isinstance(seed, (jax.Array, np.ndarray, np.generic)):
        high, low = words_of_int(as_index("seed", seed))
    elif jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        if seed.size != 1:
            raise ArgumentValueError("seed", "one PRNG key", f"keys of shape {seed.shape}")
        high, low = _words_of_key(jax.random.key_data(seed))  # type: ignore[arg-type]
    elif jnp.issubdtype(seed.dtype, jnp.integer):
        high, low = _words_of_array(seed)
    else:
        raise ArgumentTypeError("seed", EXPECTED, f"an array of {seed.dtype}")
    words = jnp.stack([jnp.asarray(low, jnp.uint32), jnp.asarray(high, jnp.uint32)])
    return jax.lax.bitcast_convert_type(words, jnp.int32)
