"""The rows of a working set that groups draw, and where its targets are among them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.negatives.arguments import IGNORED
from ...kernels.negatives.samplers import sampler_of
from ...kernels.plan.group_draw import GroupDraw, plan_group_draw
from ...kernels.plan.row_set import NO_ROW, DrawnRows
from ..loss.ops import operator


def drawn_rows(
    target: Tensor, places: Tensor, total: int, plan: GroupDraw, sampler: str, by_reference: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``drawn`` (D + T,), the targets' places (N,) and ``positions`` (N,) of a `WorkingSet` of ``total`` rows, by the
    ``places`` of draws, then of the flat ``target`` (N,); ``plan`` is that of the ``sampler`` with this text."""
    if by_reference:
        return _by_reference(target, places, total, plan)
    return _by_kernels(target, places, sampler, plan.num_items, plan.ignore_index, total)


def _by_reference(target: Tensor, places: Tensor, total: int, plan: GroupDraw) -> tuple[Tensor, Tensor, Tensor]:
    num_drawn, device = plan.num_drawn, places.device
    drawn, own = places[:num_drawn], places[num_drawn:][: plan.num_rows]
    is_item = (target != plan.ignore_index) & (target >= 0) & (target < plan.num_items)
    # each row is drawn once at most: by which place
    place = torch.arange(num_drawn, dtype=torch.int32, device=device)
    drawn_at = torch.full((total + 1,), -1, dtype=torch.int32, device=device)
    drawn_at.scatter_(0, torch.where(drawn >= 0, drawn, total).long(), place)
    drawn_at = drawn_at[:total]
    alone = torch.arange(total, dtype=torch.int32, device=device).masked_fill(drawn_at >= 0, -1)
    at = drawn_at[own.clamp(min=0).long()]
    positions = torch.where(at >= 0, at, own + num_drawn).masked_fill(~is_item, NO_ROW)
    # what is no item is none of the rows either
    other = torch.where(target == plan.ignore_index, IGNORED, total)
    return torch.cat([drawn, alone]), torch.where(is_item, own, other).int(), positions


def _plan(target: Tensor, sampler: str, num_items: int, ignore_index: int, total: int) -> DrawnRows:
    draw = plan_group_draw(sampler_of(sampler), len(target), num_items, ignore_index)
    assert isinstance(draw, GroupDraw)
    return DrawnRows(draw, total)


def _found(
    target: Tensor, places: Tensor, sampler: str, num_items: int, ignore_index: int, total: int
) -> tuple[Tensor, Tensor, Tensor]:
    from ...kernels.launch.row_set import launch_drawn_rows

    plan = _plan(target, sampler, num_items, ignore_index, total)
    with torch.cuda.device_of(target):
        outs = {each.name: places.new_empty(each.shape) for each in plan.buffers}
        launch_drawn_rows(outs, {"target": target, "places": places}, plan)
    return outs["drawn"], outs["target_places"], outs["positions"]


def _fake_found(target, places, sampler, num_items, ignore_index, total):
    plan = _plan(target, sampler, num_items, ignore_index, total)
    return tuple(places.new_empty(each.shape) for each in plan.buffers[:3])


_by_kernels = operator(
    "drawn_rows",
    "(Tensor target, Tensor places, str sampler, SymInt num_items, SymInt ignore_index, SymInt total) "
    "-> (Tensor, Tensor, Tensor)",
    _found,
    _fake_found,
)
