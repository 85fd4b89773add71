"""What scalable cross-entropy does around its rows: normals, buckets and the maximum over buckets, in plain torch."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import torch
from torch import Tensor

from ...kernels.draws.normals import normal_places, normals_of_places
from ...kernels.draws.permutation import MASK
from ...kernels.errors import ArgumentValueError
from ...kernels.negatives.buckets import Buckets
from ...kernels.plan.nearest import plan_nearest
from . import ops
from .candidates import arithmetic

TINY = 2.0**-126  # the smallest normal fp32 number


def _where(condition: Tensor | bool, a: Tensor | int, b: Tensor | int) -> Tensor | int:
    return torch.where(condition, a, b) if isinstance(condition, Tensor) else a if condition else b


# ints stay ints: a tensor made of one would be a copy to the device, which waits for it
_arithmetic = replace(
    arithmetic(torch.device("cpu")),
    u32=lambda value: value.long() if isinstance(value, Tensor) else value,
    where=_where,
)


def _normals(seed: Tensor, first_row: int, num_rows: int, num_columns: int, impl: str) -> Tensor:
    """Standard normals (num_rows, num_columns) fp32 of the rows ``first_row`` ..; seed (2,) int32 words (low, high)."""
    if impl == "reference":
        words = seed.long() & MASK
        rows = torch.arange(first_row, first_row + num_rows, device=seed.device)
        columns = torch.arange(num_columns, device=seed.device)
        places = normal_places(_arithmetic, (words[1], words[0]), rows, columns)
    else:
        from ...kernels.launch.normals import launch_normal_places

        with torch.cuda.device_of(seed):
            places = torch.empty((num_rows, num_columns), dtype=torch.int32, device=seed.device)
            launch_normal_places(places, seed, first_row)
    return normals_of_places(places.float(), torch.erfinv)


def _fake_normals(seed, first_row, num_rows, num_columns, impl):
    return seed.new_empty((num_rows, num_columns), dtype=torch.float32)


normals = ops.operator(
    "normals",
    "(Tensor seed, SymInt first_row, SymInt num_rows, SymInt num_columns, str impl) -> Tensor",
    _normals,
    _fake_normals,
)


def _row_targets(target: Tensor, num_items: int, ignore_index: int) -> Tensor:
    """The targets of rows that all count: 0 where a row is ignored, -1 or V where a target is no item, which raises on
    the CPU."""
    ignored = target == ignore_index
    if not target.is_cuda:
        wrong = target[~ignored & ((target < 0) | (target >= num_items))]
        if wrong.numel():
            raise ArgumentValueError("target", f"ignore_index or an item in [0, {num_items})", int(wrong[0]))
    return torch.where(ignored, 0, target.clamp(-1, num_items))


row_targets = ops.operator(
    "row_targets",
    "(Tensor target, SymInt num_items, SymInt ignore_index) -> Tensor",
    _row_targets,
    lambda target, num_items, ignore_index: torch.empty_like(target),
)


# an operator, as not every version of torch can trace mm with another dtype of its result
_wide_product = ops.operator(
    "wide_product",
    "(Tensor a, Tensor b) -> Tensor",
    lambda a, b: torch.mm(a, b, out_dtype=torch.float32) if b.is_cuda else a.float() @ b.float(),
    lambda a, b: a.new_empty((a.shape[0], b.shape[1]), dtype=torch.float32),
)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in fp32, ``a`` (fp32) rounded to b's dtype first: on a GPU half-precision products are far faster than fp32
    ones."""
    return a @ b if b.dtype == torch.float32 else _wide_product(a.to(b.dtype), b)


def _centres(hidden: Tensor, seed: Tensor, buckets: Buckets, impl: str) -> Tensor:
    """The buckets' centres (n_buckets, D) fp32, each scaled to a largest entry of 1, which changes no order and fits
    every dtype."""
    num_rows, dim = hidden.shape
    if buckets.mix_x:
        centres = torch.zeros(buckets.n_buckets, dim, dtype=torch.float32, device=hidden.device)
        for first in range(0, num_rows, buckets.mixed_at_a_time):
            some = hidden[first : first + buckets.mixed_at_a_time]
            centres = centres + _product(normals(seed, first, len(some), buckets.n_buckets, impl).T, some)
    else:
        centres = normals(seed, 0, buckets.n_buckets, dim, impl)
    return centres / centres.abs().amax(1, keepdim=True).clamp(min=TINY)


def _largest(
    centres: Tensor, vectors: Tensor, dtype: torch.dtype, size: int, at_a_time: int, counted: Tensor | None
) -> Tensor:
    """``_nearest`` with all products of ``at_a_time`` vectors in memory."""
    best = places = None
    for first in range(0, len(vectors), at_a_time):
        some = slice(first, first + at_a_time)
        scores = _product(centres, vectors[some].to(dtype).T)
        if counted is not None:
            scores = scores.masked_fill(~counted[some], -math.inf)
        found, found_at = scores.topk(min(size, scores.shape[1]), sorted=False)
        found_at = found_at + first
        if best is not None and places is not None:
            found, taken = torch.cat([best, found], 1).topk(size, sorted=False)
            found_at = torch.cat([places, found_at], 1).gather(1, taken)
        best, places = found, found_at
    assert places is not None
    return places.sort(1).values


def _find_nearest(centres: Tensor, vectors: Tensor, counted: Tensor | None, size: int) -> Tensor:
    """The places (B, size) int32, ascending, of the vectors (M, D) with the largest products with each centre (B,
    D)."""
    from ...kernels.launch.nearest import launch_nearest

    plan = plan_nearest(len(centres), len(vectors), size)
    assert plan is not None
    with torch.cuda.device_of(centres):
        searched = {"centres": centres, "vectors": vectors}
        ins = searched if plan.block else {"values": _product(centres, vectors.to(centres.dtype).T)}
        if counted is not None:
            ins["counted"] = counted if plan.block else counted.int()
        outs = {b.name: torch.empty(b.shape, dtype=ops.DTYPES[b.dtype], device=centres.device) for b in plan.buffers}
        outs["places"] = torch.empty((len(centres), size), dtype=torch.int32, device=centres.device)
        launch_nearest(outs, ins, plan)
    return outs["places"]


find_nearest = ops.operator(
    "find_nearest",
    "(Tensor centres, Tensor vectors, Tensor? counted, SymInt size) -> Tensor",
    _find_nearest,
    lambda centres, vectors, counted, size: centres.new_empty((centres.shape[0], size), dtype=torch.int32),
)


def _nearest(
    centres: Tensor, vectors: Tensor, dtype: torch.dtype, size: int, buckets: Buckets, counted: Tensor | None, impl: str
) -> Tensor:
    """The places (n_buckets, size), ascending, of the vectors with the largest products with each centre; those not
    counted come last."""
    if impl == "triton" and plan_nearest(len(centres), len(vectors), size):
        return find_nearest(centres.to(dtype), vectors, counted, size)
    return _largest(centres, vectors, dtype, size, buckets.scores_at_a_time(size, vectors.shape[1]), counted)


@torch.no_grad()
def choose(
    hidden: Tensor, weight: Tensor, counted: Tensor, seed: Tensor, buckets: Buckets, impl: str
) -> tuple[Tensor, Tensor]:
    """The rows (n_buckets, bucket_size_x) int64 and items (n_buckets, bucket_size_y) int32 of each bucket, ascending.

    Rows that do not count, of which ``hidden`` (N, D) holds zeros, fill up buckets that the others don't. Which of
    equal products are taken is not specified; those of continuous scores rarely are.
    """
    with contextlib.nullcontext() if hidden.is_meta else torch.autocast(hidden.device.type, enabled=False):
        centres = _centres(hidden, seed, buckets, impl)
        rows = _nearest(centres, hidden, hidden.dtype, buckets.bucket_size_x, buckets, counted, impl)
        items = _nearest(centres, weight, hidden.dtype, buckets.bucket_size_y, buckets, None, impl)
    return rows.long(), items.int()


def largest_losses(loss: Tensor, rows: Tensor, used: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """The largest of the losses (M,) of each of ``num_rows`` rows, 0 where it has none, and which rows have one.

    Only losses that are ``used`` count. The gradient goes to the largest one, in equal parts to several.
    """
    known = torch.where(used, loss.detach(), 0.0)  # losses are at least 0
    largest = torch.zeros(num_rows, dtype=torch.float32, device=loss.device).scatter_reduce(0, rows, known, "amax")
    is_largest = used & ~(known < largest[rows])  # NaN too
    number = torch.zeros(num_rows, dtype=torch.float32, device=loss.device).index_add(0, rows, is_largest.float())
    shares = torch.where(is_largest, loss, 0.0) / number.clamp(min=1)[rows]
    # sums of equal numbers, or of one and zeros, which no order of adding changes
    return torch.zeros(num_rows, dtype=torch.float32, device=loss.device).index_add(0, rows, shares), number > 0
