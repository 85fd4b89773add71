"""Rows of a table in the host's memory: to the device, back, and anew where they moved; by kernels on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.plan.row_copy import RowCopy, RowRefresh
from ..loss.row_losses import resolve_impl
from .read import check_weight


def fetch_rows(weight: Tensor, ids: Tensor, *, impl: str = "auto") -> Tensor:
    """Rows ``ids`` (T,) int32 of ``weight`` (V, D), contiguous float32 or bfloat16, as (T, D) of its dtype. What is no
    row is NaN of the kernel, and an error of plain torch's."""
    check_weight(weight)
    if resolve_impl(impl, weight.device) == "reference" or not len(ids):
        return weight.index_select(0, ids)
    from ...kernels.launch.row_copy import launch_row_fetch

    rows = torch.empty((len(ids), weight.shape[1]), dtype=weight.dtype, device=weight.device)
    with torch.cuda.device_of(weight):
        launch_row_fetch({"rows": rows}, {"weight": weight, "ids": ids}, _plan(weight, ids))
    return rows


def write_rows(weight: Tensor, ids: Tensor, count: Tensor, rows: Tensor, *, impl: str = "auto") -> None:
    """Writes the first ``count`` (1,) int32 of ``rows`` (T, D), of the table's dtype, to the rows ``ids`` (T,) int32 of
    ``weight`` (V, D)."""
    check_weight(weight)
    if resolve_impl(impl, weight.device) == "reference":
        weight[ids[: int(count)].long()] = rows[: int(count)]
    elif len(ids):
        from ...kernels.launch.row_copy import launch_row_write

        with torch.cuda.device_of(weight):
            launch_row_write({"weight": weight}, {"ids": ids, "count": count, "rows": rows}, _plan(weight, ids))


def refresh_rows(rows: Tensor, ids: Tensor, moved: Tensor, count: Tensor, news: Tensor, *, impl: str = "auto") -> None:
    """Takes those of ``rows`` (T, D), whose ids are ``ids`` (T,) int32, that are among the first ``count`` (1,) int32
    of ``moved`` (M,) int32, which ascend, from their rows ``news`` (M, D)."""
    if not len(ids) or not len(moved):
        return
    if resolve_impl(impl, rows.device) == "reference":
        place = torch.searchsorted(moved, ids).clamp(max=len(moved) - 1)
        is_moved = (moved[place] == ids) & (place < count)  # ids behind the count repeat the last
        rows.copy_(torch.where(is_moved[:, None], news[place], rows))
        return
    from ...kernels.launch.row_copy import launch_row_refresh

    plan = RowRefresh(len(ids), len(moved), rows.shape[1], str(rows.dtype).removeprefix("torch."))
    with torch.cuda.device_of(rows):
        launch_row_refresh({"rows": rows}, {"ids": ids, "moved": moved, "count": count, "news": news}, plan)


def _plan(weight: Tensor, ids: Tensor) -> RowCopy:
    (num_items, dim), dtype = weight.shape, str(weight.dtype).removeprefix("torch.")
    return RowCopy(len(ids), num_items, dim, dtype)
