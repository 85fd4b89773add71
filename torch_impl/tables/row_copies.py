"""Rows of a table in the host's memory: to the device, back, and anew where they moved; by kernels on a GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.plan.row_copy import RowCopy, RowRefresh
from ..loss.row_losses import resolve_impl
from .read import check_weight


class Moved(NamedTuple):
    """The first ``count`` (1,) int32 of the rows ``ids`` (M,) int32, as they are now: ``news`` (M, D) of the table's
    dtype."""

    ids: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    news: Tensor


def fetch_rows(weight: Tensor, ids: Tensor, moved: Moved | None = None, *, impl: str = "auto") -> Tensor:
    """Rows ``ids`` (T,) int32 of ``weight`` (V, D), contiguous float32 or bfloat16, as (T, D) of its dtype. What is no
    row is NaN of the kernel, and an error of plain torch's. What has ``moved`` is written to the table at the same
    time: those of the rows that are among it are read as they were or as they are."""
    check_weight(weight)
    if resolve_impl(impl, weight.device) == "reference" or not len(ids):
        if moved is not None:
            write_rows(weight, moved, impl=impl)
        return weight.index_select(0, ids)
    rows = torch.empty((len(ids), weight.shape[1]), dtype=weight.dtype, device=weight.device)
    _copy(weight, moved, ids, rows)
    return rows


def write_rows(weight: Tensor, moved: Moved, *, impl: str = "auto") -> None:
    """Writes what has ``moved`` to ``weight`` (V, D)."""
    check_weight(weight)
    if resolve_impl(impl, weight.device) == "reference":
        count = int(moved.count)
        weight[moved.ids[:count].long()] = moved.news[:count]
    elif len(moved.ids):
        _copy(weight, moved)


def _copy(weight: Tensor, moved: Moved | None, ids: Tensor | None = None, rows: Tensor | None = None) -> None:
    from ...kernels.launch.row_copy import launch_row_copy

    (num_items, dim), dtype = weight.shape, str(weight.dtype).removeprefix("torch.")
    ins, outs = {}, {"weight": weight}
    if moved is not None and len(moved.ids):
        ins |= {"moved": moved.ids, "count": moved.count, "news": moved.news}
    if ids is not None and rows is not None:
        ins, outs = ins | {"ids": ids}, outs | {"rows": rows}
    plan = RowCopy(len(ins.get("moved", ())), len(ins.get("ids", ())), num_items, dim, dtype)
    with torch.cuda.device_of(weight):
        launch_row_copy(outs, ins, plan)


def refresh_rows(rows: Tensor, ids: Tensor, moved: Moved, *, impl: str = "auto") -> None:
    """Takes those of ``rows`` (T, D), whose ids are ``ids`` (T,) int32, that are among what has ``moved``, whose ids
    ascend, from there."""
    if not len(ids) or not len(moved.ids):
        return
    if resolve_impl(impl, rows.device) == "reference":
        place = torch.searchsorted(moved.ids, ids).clamp(max=len(moved.ids) - 1)
        is_moved = (moved.ids[place] == ids) & (place < moved.count)  # ids behind the count repeat the last
        rows.copy_(torch.where(is_moved[:, None], moved.news[place], rows))
        return
    from ...kernels.launch.row_copy import launch_row_refresh

    ins = {"ids": ids, "moved": moved.ids, "count": moved.count, "news": moved.news}
    plan = RowRefresh(len(ids), len(moved.ids), rows.shape[1], str(rows.dtype).removeprefix("torch."))
    with torch.cuda.device_of(rows):
        launch_row_refresh({"rows": rows}, ins, plan)
