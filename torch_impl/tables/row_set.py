"""The distinct rows that ids of a step name."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from ...kernels.plan.row_set import NO_ROW, RowSetPlan
from ..loss.ops import operator
from ..loss.row_losses import resolve_impl


class RowSet(NamedTuple):
    """Distinct rows of a table, of a number that only the device knows.

    ``ids`` (T,) int32: the first ``count`` (1,) int32 are distinct and ascending, the rest repeat the last of them (0
    where there is none). ``places``, of the shape of the ids that were given and int32, says where in ``ids`` each of
    them is; negative ids stay as they are.
    """

    ids: Tensor
    places: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]


def row_set(ids: Tensor, bound: int | None = None, *, impl: str = "auto") -> RowSet:
    """The distinct ones of integer ``ids`` of any shape, below 2^31 - 1, by one sort, without waiting for the device.

    ``bound``: T, at least the number of distinct ids; by default as many as are given. Negative ids name no row. Places
    of ids beyond the bound are those of no row (T and above). ``impl``: "triton", "reference" (plain torch), or "auto":
    triton on CUDA. On a CPU ArgumentValueError is raised for such, and for
    larger ids. Raises ArgumentTypeError for other than integers.
    """
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int32, torch.int64):
        got = str(ids.dtype) if isinstance(ids, Tensor) else type(ids).__name__
        raise ArgumentTypeError("ids", "a tensor of int32 or int64", got)
    most = ids.numel() if bound is None else as_index("bound", bound)
    if most < 0:
        raise ArgumentValueError("bound", "an int of at least 0", bound)
    flat = ids.reshape(-1)
    if resolve_impl(impl, ids.device) == "triton" and len(flat) and most:
        found = _by_kernels(flat.int().contiguous(), most)
        return RowSet(found[0], found[1].view(ids.shape), found[2])
    looks = not ids.is_cuda and not torch.compiler.is_compiling()
    if looks and len(flat) and int(flat.max()) >= NO_ROW:
        raise ArgumentValueError("ids", f"ints below {NO_ROW}", int(flat.max()))
    flat = flat.int()  # half the work of sorting
    keys, order = torch.sort(torch.where(flat >= 0, flat, NO_ROW))
    is_id = keys != NO_ROW
    is_new = is_id.clone()
    is_new[1:] &= keys[1:] != keys[:-1]
    rank = is_new.cumsum(0) - 1
    count = is_new.sum(dtype=torch.int32).reshape(1)
    if looks and int(count) > most:
        raise ArgumentValueError("bound", f"at least {int(count)}, the number of distinct ids", most)
    last = torch.where(is_id, keys, 0).max() if len(flat) else torch.zeros((), dtype=torch.int32, device=ids.device)
    # a place more, for what is not new or beyond the bound
    found = last.expand(most + 1).clone()
    found.scatter_(0, torch.where(is_new, rank, most).clamp(max=most), torch.where(is_new, keys, last))
    places = torch.empty_like(rank, dtype=torch.int32).scatter_(0, order, rank.int())
    places = torch.where(flat >= 0, places, flat).reshape(ids.shape)
    return RowSet(found[:most], places, count.clamp(max=most))


def _found(given: Tensor, bound: int) -> tuple[Tensor, Tensor, Tensor]:
    from ...kernels.launch.row_set import launch_row_set

    plan = RowSetPlan(len(given), bound)
    keys, order = torch.sort(torch.where(given >= 0, given, NO_ROW), stable=True)
    with torch.cuda.device_of(given):
        outs = {each.name: given.new_empty(each.shape) for each in plan.buffers}
        launch_row_set(outs, {"given": given, "keys": keys, "order": order}, plan)
    return outs["ids"], outs["places"], outs["count"]


_by_kernels = operator(
    "row_set",
    "(Tensor given, SymInt bound) -> (Tensor, Tensor, Tensor)",
    _found,
    lambda given, bound: (given.new_empty(bound), torch.empty_like(given), given.new_empty(1)),
)
