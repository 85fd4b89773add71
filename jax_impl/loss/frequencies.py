"""A running estimate of how often items are targets, by which in-batch negatives are corrected."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...interop import in_auto_axes, own_settings
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import check_rate
from .arguments import as_int32, check_ignore_index, is_array, placed


def update_frequencies(frequencies: ArrayLike, target: ArrayLike, *, rate: float, ignore_index: int = -100) -> Array:
    """The estimate after one more batch: ``(1 - rate) q + rate n / N``, n_j the times that item j is a target of the N
    counted rows.

    ``frequencies`` (V,) float32 are q before, best of the training data, or 1 / V each; they stay as they are where no
    row counts. The loss takes ``log_q=jnp.log(update_frequencies(..))``, the batch's own targets included, so that none
    of them has probability 0. ``target`` (...) holds items or ``ignore_index``. After Yi et al.,
    Sampling-bias-corrected neural modeling (RecSys 2019), with an average in place of the steps between occurrences.

    Raises ArgumentTypeError or ArgumentValueError naming the argument.
    """
    check_rate(rate)
    check_ignore_index(ignore_index)
    frequencies, target = (array if is_array(array) else jnp.asarray(array) for array in (frequencies, target))
    if frequencies.dtype != jnp.float32:
        raise ArgumentTypeError("frequencies", "a float32 array", str(frequencies.dtype))
    if frequencies.ndim != 1:
        raise ArgumentValueError("frequencies", "shape (V,)", frequencies.shape)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise ArgumentTypeError("target", "an integer array", str(target.dtype))
    return _update(*placed((frequencies, target, np.float32(1 - rate), np.float32(rate), np.int32(ignore_index))))


@jax.jit
def _update(*arrays: Array) -> Array:
    def updated(arrays: tuple[Array, ...]) -> Array:
        frequencies, target, keep, rate, ignore_index = arrays
        items = target.reshape(-1)
        counted = (items != ignore_index) & (items >= 0) & (items < len(frequencies))
        counts = jnp.zeros_like(frequencies).at[jnp.where(counted, items, 0)].add(counted.astype(jnp.float32))
        total = counted.sum()
        return jnp.where(total > 0, keep * frequencies + rate * counts / jnp.maximum(total, 1), frequencies)

    frequencies, target, *numbers = arrays
    with own_settings():
        return in_auto_axes(updated, (frequencies, as_int32(target), *numbers), frequencies)
