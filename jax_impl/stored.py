"""Arrays of a device to files and from them, in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from ..recsys.run.tensor_file import Stored, row_ranges


def stored(array: Array | np.ndarray) -> Stored:
    """``array`` as it is when its pieces are asked for, on the host."""

    def pieces() -> Iterator[np.ndarray]:
        ranges = list(row_ranges(array.shape, array.dtype.itemsize)) if array.ndim else []
        if len(ranges) < 2:  # a slice would be a copy on the device
            yield _words(np.asarray(array))
            return
        for first, end in ranges:
            with _on_its_device(array):
                piece = np.asarray(array[first:end])
            yield _words(piece)

    return Stored(array.dtype.name, array.shape, pieces)


def array_of(source: Stored, dtype: DTypeLike | None = None) -> Array:
    """``source`` on the device, in ``dtype`` or its own."""
    dtype = jnp.dtype(dtype or source.dtype)
    ranges = list(row_ranges(source.shape, source.numpy_dtype.itemsize)) if source.shape else []
    if len(ranges) < 2:
        return jnp.asarray(_in_dtype(source.array(), source.dtype), dtype)
    array = jnp.zeros(source.shape, dtype)
    for (first, _), piece in zip(ranges, source.pieces(), strict=True):
        array = _with_rows(array, _in_dtype(piece, source.dtype), first)
    return array


def _on_its_device(array: Array | np.ndarray) -> contextlib.AbstractContextManager[object]:
    """Inside, slices are made where the array is: elsewhere by default, in a thread that has JAX's own settings."""
    return jax.default_device(next(iter(array.devices()))) if isinstance(array, Array) else contextlib.nullcontext()


@partial(jax.jit, donate_argnums=0)
def _with_rows(array: Array, rows: Array, first: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, rows.astype(array.dtype), first, 0)


def _words(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array).reshape(array.shape)  # a number stays one
    return array.view(np.uint16) if array.dtype == jnp.bfloat16 else array


def _in_dtype(piece: np.ndarray, dtype: str) -> np.ndarray:
    return piece.view(jnp.bfloat16) if dtype == "bfloat16" else piece
