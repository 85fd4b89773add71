"""Seeds: what a draw follows from, as the two words that every implementation reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ...kernels.draws.permutation import MASK, fold_words
from ...kernels.draws.permutation import seed_words as words_of_int
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.samplers import as_index
from .candidates import arithmetic

EXPECTED = "an int, an integer array of 1 or 2 elements, or a PRNG key"


def _words_of_key(data: Array) -> tuple[Array, Array]:
    """The words of a key's data (high, low, further ones mixed in)."""
    words = data.reshape(-1)
    seed = words[0], words[1]
    for word in words[2:]:
        seed = fold_words(arithmetic(), seed, word)
    return seed


def as_seed(seed: object) -> Array | np.ndarray:
    """A seed, checked, as an array that ``seed_words`` takes: an int and NumPy's integers as two words (high, low)."""
    if seed is None:
        raise ArgumentTypeError("seed", f"{EXPECTED} (a draw needs one)", None)
    if not isinstance(seed, (jax.Array, np.ndarray, np.generic)):
        return np.array(words_of_int(as_index("seed", seed)), np.uint32)
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        if seed.size != 1:
            raise ArgumentValueError("seed", "one PRNG key", f"keys of shape {seed.shape}")
    elif not jnp.issubdtype(seed.dtype, jnp.integer):
        raise ArgumentTypeError("seed", EXPECTED, f"an array of {seed.dtype}")
    elif seed.size not in (1, 2):
        raise ArgumentValueError("seed", "an array of 1 or 2 elements", seed.shape)
    if isinstance(seed, jax.Array):
        return seed
    values = [int(value) for value in seed.reshape(-1)]
    return np.array(words_of_int(*values) if len(values) == 1 else [value & MASK for value in values], np.uint32)


def seed_words(seed: Array | np.ndarray) -> Array:
    """Two int32 words (low, high) of what ``as_seed`` returned.

    A seed is an int, an array of one integer, one of two integers taken as 32-bit words (high, low), all
    modulo 2^64, or a PRNG key of ``jax.random``: its data's words (high, low), with any further words mixed
    in. ``jax.random.key(5)`` draws as 5 does. None raises, as JAX has no default generator.
    """
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        high, low = _words_of_key(jax.random.key_data(seed))  # type: ignore[arg-type]
    else:
        with jax.enable_x64(True):  # an array may have 64 bits whatever the setting is now
            wide = jnp.asarray(seed).reshape(-1).astype(jnp.int64)
            high, low = (wide[0], wide[1]) if seed.size == 2 else (wide[0] >> 32, wide[0])
            high, low = high.astype(jnp.uint32), low.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(jnp.stack([low, high]), jnp.int32)
