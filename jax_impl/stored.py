"""Arrays of devices to files and from them, in pieces.

A table whose rows the devices of a mesh share is in files as a whole; here each device has its part of it alone. Where
the devices are of several processes, each fills its own, and the first process writes what all of them gather.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.typing import DTypeLike

from ..recsys.run.mapped_rows import MappedRows
from ..recsys.run.table_shards import mapped_rows_of_shard, rows_of_shard, whole
from ..recsys.run.tensor_file import Stored, row_ranges


def stored(array: Array | np.ndarray) -> Stored:
    """``array`` as it is when its pieces are asked for, on the host; one that all devices have."""
    array = _of_this_process(array)

    def pieces() -> Iterator[np.ndarray]:
        ranges = list(row_ranges(array.shape, array.dtype.itemsize)) if array.ndim else []
        if len(ranges) < 2:  # a slice would be a copy on the device
            yield _words(np.asarray(array))
            return
        for first, end in ranges:
            yield _rows(array, first, end)

    return Stored(array.dtype.name, array.shape, pieces)


def is_sharded(array: Any) -> bool:
    """Whether devices share the rows of ``array``, or of what has its shape and sharding."""
    sharding = getattr(array, "sharding", None)
    return sharding is not None and not sharding.is_fully_replicated


def whole_shape(array: Any, num_items: int) -> tuple[int, ...]:
    """The shape of ``array`` in a file; a sharded one has a row for each of ``num_items``."""
    return (num_items, *array.shape[1:]) if is_sharded(array) else array.shape


def stored_whole(array: Array | np.ndarray, num_items: int) -> Stored:
    """`stored`, of a sharded array the rows of ``num_items`` in their order, whose pieces all of several processes ask
    for together: the first one gets them, others none."""
    if not isinstance(array, Array) or not is_sharded(array):
        return stored(array)
    number = len(array.sharding.device_set)
    if array.is_fully_addressable:
        parts = [part for _, part in _parts(array)]

        def rows_of_parts(first: int, end: int) -> list[np.ndarray]:
            return [_rows(part, first, end) for part in parts]
    else:

        def rows_of_parts(first: int, end: int) -> list[np.ndarray]:
            rows = _rows_of_parts(array, first, number=number, size=end - first)
            every = multihost_utils.process_allgather(rows, tiled=True)
            return list(map(_words, every)) if jax.process_index() == 0 else []

    return whole(array.dtype.name, whole_shape(array, num_items), number, rows_of_parts)


def asked_for(arrays: dict[str, Any], *, writes: bool) -> dict[str, Any]:
    """Those of which this process asks for the pieces: one that does not write them has a part in those that another
    one gathers."""
    return {name: array for name, array in arrays.items() if writes or is_sharded(array)}


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


def filled(array: Any, source: Stored | MappedRows) -> Array:
    """``array``, which is used up, with ``source`` in its place and dtype; of mapped rows those that have a place,
    while others stay. Of a `Stored` one, its shape, dtype and sharding are enough."""
    if is_sharded(array):
        return _filled_parts(array, source)
    if not isinstance(source, MappedRows):
        return array_of(source, array.dtype)
    array = _of_this_process(array)
    for places, rows in source.pieces():
        array = _with_rows_at(array, _in_dtype(rows, source.dtype), places)
    return array


def _filled_parts(array: Any, source: Stored | MappedRows) -> Array:
    """`filled` of a sharded array, from one reading of the whole ``source``."""
    if not isinstance(array, Array) or array.is_deleted():
        array = jnp.zeros(array.shape, array.dtype, device=array.sharding)
    indices, parts = map(list, zip(*_parts(array), strict=True))
    firsts = [0] * len(parts)
    for pieces in zip(*_pieces_of_parts(source, indices, len(array.sharding.device_set)), strict=True):
        for index, piece in enumerate(pieces):
            if isinstance(piece, tuple):
                places, rows = piece
                parts[index] = _with_rows_at(parts[index], _in_dtype(rows, source.dtype), places)
            elif len(piece):
                parts[index] = _with_rows(parts[index], _in_dtype(piece, source.dtype), firsts[index])
                firsts[index] += len(piece)
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)


def _pieces_of_parts(source: Stored | MappedRows, indices: list[int], number: int) -> list[Iterator[Any]]:
    """What the parts ``indices`` of ``number`` have of the pieces of ``source``, of which one at a time is in memory
    where parts take turns."""
    found: list[Iterator[Any]] = []
    for index, stream in zip(indices, itertools.tee(iter(source.pieces()), len(indices)), strict=True):
        shared: Any = replace(source, pieces=partial(_as_it_is, stream))
        part = mapped_rows_of_shard if isinstance(source, MappedRows) else rows_of_shard
        found.append(iter(part(shared, index, number).pieces()))
    return found


def _as_it_is(stream: Iterator[Any]) -> Iterator[Any]:
    return stream


def _parts(array: Array) -> list[tuple[int, Array]]:
    """What each device of this process has, with which of the parts it is, in the order of the rows."""
    firsts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return [(first // len(firsts[first]), firsts[first]) for first in sorted(firsts)]


@partial(jax.jit, static_argnames=("number", "size"))
def _rows_of_parts(array: Array, first: int, *, number: int, size: int) -> Array:
    """(number, size, ..) rows of the parts of ``array``, where they are."""
    of_parts = array.reshape(number, -1, *array.shape[1:])
    return jax.lax.dynamic_slice_in_dim(of_parts, first, size, axis=1)


def _of_this_process(array: Any) -> Any:
    """An array that all devices have, on devices of this process: others take no part in what is done with it."""
    is_elsewhere = isinstance(array, Array) and not array.is_fully_addressable
    return array.addressable_data(0) if is_elsewhere else array


def _rows(array: Array | np.ndarray, first: int, end: int) -> np.ndarray:
    if (first, end) == (0, len(array)):  # a slice would be a copy on the device
        return _words(np.asarray(array))
    with _on_its_device(array):
        return _words(np.asarray(array[first:end]))


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
