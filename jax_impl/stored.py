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

from ..recsys.run.mapped_rows import MappedRows
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
    array, first = jnp.zeros(source.shape, dtype), 0
    for piece in source.pieces():
        array = _with_rows(array, _in_dtype(piece, source.dtype), first)
        first += len(piece)
    return array


def filled(array: Array, source: Stored | MappedRows) -> Array:
    """``array``, which is used up, with ``source`` in its place and dtype; of mapped rows those that have a place,
    while others stay."""
    if not isinstance(source, MappedRows):
        return array_of(source, array.dtype)
    for places, rows in source.pieces():
        array = _with_rows_at(array, _in_dtype(rows, source.dtype), places)
    return array


def _on_its_device(array: Array | np.ndarray) -> contextlib.AbstractContextManager[object]:
    """Inside, slices are made where the array is: elsewhere by default, in a thread that has JAX's own settings."""
    return jax.default_device(next(iter(array.devices()))) if isinstance(array, Array) else contextlib.nullcontext()


@partial(jax.jit, donate_argnums=0)
def _with_rows(array: Array, rows: Array, first: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, rows.astype(array.dtype), first, 0)


@partial(jax.jit, donate_argnums=0)
def _with_rows_at(array: Array, rows: Array, places: Array) -> Array:
    """Rows without a place stay out: all pieces of a file but the last have one shape, which is compiled once."""
    return array.at[jnp.where(places >= 0, places, len(array))].set(rows.astype(array.dtype), mode="drop")


def _words(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array).reshape(array.shape)  # a number stays one
    return array.view(np.uint16) if array.dtype == jnp.bfloat16 else array


def _in_dtype(piece: np.ndarray, dtype: str) -> np.ndarray:
    return piece.view(jnp.bfloat16) if dtype == "bfloat16" else piece
