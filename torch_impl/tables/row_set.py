"""The distinct rows that ids of a step name."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index

_NONE = 2**31 - 1  # sorts behind every id


class RowSet(NamedTuple):
    """Distinct rows of a table, of a number that only the device knows.

    ``ids`` (T,) int32: the first ``count`` (1,) int32 are distinct and ascending, the rest repeat the last of them (0
    where there is none). ``places``, of the shape of the ids that were given and int32, says where in ``ids`` each of
    them is; negative ids stay as they are.
    """

    ids: Tensor
    places: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]


def row_set(ids: Tensor, bound: int | None = None) -> RowSet:
    """The distinct ones of integer ``ids`` of any shape, below 2^31 - 1, by one sort, without waiting for the device.

    ``bound``: T, at least the number of distinct ids; by default as many as are given. Negative ids name no row. Places
    of ids beyond the bound are those of no row (T and above). On a CPU ArgumentValueError is raised for such, and for
    larger ids. Raises ArgumentTypeError for other than integers.
    """
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int32, torch.int64):
        got = str(ids.dtype) if isinstance(ids, Tensor) else type(ids).__name__
        raise ArgumentTypeError("ids", "a tensor of int32 or int64", got)
    most = ids.numel() if bound is None else as_index("bound", bound)
    if most < 0:
        raise ArgumentValueError("bound", "an int of at least 0", bound)
    flat = ids.reshape(-1)
    looks = not ids.is_cuda and not torch.compiler.is_compiling()
    if looks and len(flat) and int(flat.max()) >= _NONE:
        raise ArgumentValueError("ids", f"ints below {_NONE}", int(flat.max()))
    flat = flat.int()  # half the work of sorting
    keys, order = torch.sort(torch.where(flat >= 0, flat, _NONE))
    is_id = keys != _NONE
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
