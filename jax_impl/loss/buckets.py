"""What scalable cross-entropy does around its rows: normals, buckets and the maximum over buckets, in plain JAX."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import sequential_vmap

from ...interop import call, local_gpus, varying_axes
from ...kernels.draws.normals import normal_places, normals_of_places
from ...kernels.negatives.buckets import Buckets
from ...kernels.plan.nearest import Nearest, plan_nearest
from .candidates import arithmetic

TINY = 2.0**-126  # the smallest normal fp32 number


def normals(seed: Array, first_row: int, num_rows: int, num_columns: int) -> Array:
    """Standard normals (num_rows, num_columns) fp32 of the rows ``first_row`` ..; seed (2,) int32 words (low, high)."""
    words = jax.lax.bitcast_convert_type(seed, jnp.uint32)
    rows, columns = jnp.arange(first_row, first_row + num_rows), jnp.arange(num_columns)
    places = normal_places(arithmetic(varying_axes(seed)), (words[1], words[0]), rows, columns)
    return normals_of_places(places.astype(jnp.float32), jax.lax.erf_inv)


def row_targets(target: Array, num_items: int, ignore_index: int) -> Array:
    """The targets of rows that all count: 0 where a row is ignored, -1 or V where a target is no item."""
    return jnp.where(target == ignore_index, 0, target.clip(-1, num_items))


def _product(a: Array, b: Array) -> Array:
    """a @ b in fp32, ``a`` (fp32) rounded to b's dtype first: on a GPU half-precision products are far faster than fp32
    ones."""
    # the highest precision, as a GPU would round fp32 to TF32
    return jnp.matmul(a.astype(b.dtype), b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def _centres(hidden: Array, seed: Array, buckets: Buckets) -> Array:
    """The buckets' centres (n_buckets, D) fp32, each scaled to a largest entry of 1, which changes no order and fits
    every dtype."""
    num_rows, dim = hidden.shape
    if buckets.mix_x:
        centres = jnp.zeros((buckets.n_buckets, dim), jnp.float32)
        for first in range(0, num_rows, buckets.mixed_at_a_time):
            some = hidden[first : first + buckets.mixed_at_a_time]
            centres = centres + _product(normals(seed, first, len(some), buckets.n_buckets).T, some)
    else:
        centres = normals(seed, 0, buckets.n_buckets, dim)
    return centres / jnp.maximum(jnp.abs(centres).max(1, keepdims=True), TINY)


def _largest(
    centres: Array, vectors: Array, dtype: jnp.dtype, size: int, at_a_time: int, counted: Array | None
) -> Array:
    """``_nearest`` with all products of ``at_a_time`` vectors in memory."""
    best = places = None
    for first in range(0, len(vectors), at_a_time):
        some = slice(first, first + at_a_time)
        scores = _product(centres, vectors[some].astype(dtype).T)
        if counted is not None:
            scores = jnp.where(counted[some], scores, -jnp.inf)
        found, found_at = jax.lax.top_k(scores, min(size, scores.shape[1]))
        found_at = found_at + first
        if best is not None and places is not None:
            found, taken = jax.lax.top_k(jnp.concatenate([best, found], 1), size)
            found_at = jnp.take_along_axis(jnp.concatenate([places, found_at], 1), taken, 1)
        best, places = found, found_at
    assert places is not None
    return jnp.sort(places, 1)


def _launch_nearest(outs: Any, ins: Any, plan: Nearest) -> None:
    from ...kernels.launch import nearest as nearest_launch

    nearest_launch.launch_nearest(outs, ins, plan)


def _find_nearest(plan: Nearest, arrays: dict[str, Array]) -> Array:
    """The places (B, size) int32, ascending, of the vectors with the largest products with each centre, by kernels."""
    dim = arrays["centres"].shape[1]
    if not plan.block:
        centres, vectors = arrays["centres"], arrays["vectors"]
        rest = {name: array.astype(jnp.int32) for name, array in arrays.items() if name == "counted"}
        arrays = {"values": _product(centres, vectors.astype(centres.dtype).T)} | rest
    for gpu in local_gpus():
        from ...kernels.launch import nearest as nearest_launch

        dtypes = tuple((name, str(array.dtype)) for name, array in arrays.items())
        nearest_launch.compile_kernels(plan, dim, dtypes, gpu)
    outs = {buffer.name: jax.ShapeDtypeStruct(buffer.shape, buffer.dtype) for buffer in plan.buffers}
    outs["places"] = jax.ShapeDtypeStruct((plan.num_centres, plan.size), jnp.int32)
    return call(_launch_nearest, outs, arrays, plan)["places"]


def _nearest(
    centres: Array, vectors: Array, dtype: jnp.dtype, size: int, buckets: Buckets, counted: Array | None, impl: str
) -> Array:
    """The places (n_buckets, size), ascending, of the vectors with the largest products with each centre; those not
    counted come last."""
    at_a_time = buckets.scores_at_a_time(size, vectors.shape[1])

    def plain(arrays: dict[str, Array]) -> Array:
        return _largest(arrays["centres"], arrays["vectors"], dtype, size, at_a_time, arrays.get("counted"))

    arrays = {"centres": centres.astype(dtype), "vectors": vectors} | ({} if counted is None else {"counted": counted})
    plan = plan_nearest(len(centres), len(vectors), size)
    if plan is None or impl == "reference":
        return plain(arrays)
    kernels = sequential_vmap(functools.partial(_find_nearest, plan))
    return kernels(arrays) if impl == "triton" else jax.lax.platform_dependent(arrays, cuda=kernels, default=plain)


def choose(
    hidden: Array, weight: Array, counted: Array, seed: Array, buckets: Buckets, impl: str
) -> tuple[Array, Array]:
    """The rows (n_buckets, bucket_size_x) and items (n_buckets, bucket_size_y) int32 of each bucket, ascending.

    Rows that do not count, of which ``hidden`` (N, D) holds zeros, fill up buckets that the others don't. Which of
    equal products are taken is not specified; those of continuous scores rarely are.
    """
    hidden, weight = jax.lax.stop_gradient((hidden, weight))
    centres = _centres(hidden, seed, buckets)
    rows = _nearest(centres, hidden, hidden.dtype, buckets.bucket_size_x, buckets, counted, impl)
    items = _nearest(centres, weight, hidden.dtype, buckets.bucket_size_y, buckets, None, impl)
    return rows, items


def largest_losses(loss: Array, rows: Array, used: Array, num_rows: int) -> tuple[Array, Array]:
    """The largest of the losses (M,) of each of ``num_rows`` rows, 0 where it has none, and which rows have one.

    Only losses that are ``used`` count. The gradient goes to the largest one, in equal parts to several.
    """
    known = jnp.where(used, jax.lax.stop_gradient(loss), 0.0)  # losses are at least 0
    largest = jnp.zeros(num_rows, jnp.float32).at[rows].max(known)
    is_largest = used & ~(known < largest[rows])  # NaN too
    number = jnp.zeros(num_rows, jnp.float32).at[rows].add(is_largest.astype(jnp.float32))
    shares = jnp.where(is_largest, loss, 0.0) / jnp.maximum(number, 1)[rows]
    # sums of equal numbers, or of one and zeros, which no order of adding changes
    return jnp.zeros(num_rows, jnp.float32).at[rows].add(shares), number > 0
