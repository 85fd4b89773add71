"""The rows of a table that a step's draw, targets and inputs name, and where among them each of these is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.draws.permutation import MASK
from ...kernels.errors import ArgumentValueError
from ...kernels.negatives.arguments import IGNORED
from ...kernels.negatives.samplers import Sampler, sampler_of
from ...kernels.plan.group_draw import GroupDraw, ListDraw, plan_group_draw
from ..loss.candidates import arithmetic, chunks
from ..loss.list_operands import slot_ends_of
from ..loss.operands import Operands
from ..loss.ops import DTYPES, operator
from ..loss.row_losses import resolve_impl
from .drawn_rows import drawn_rows
from .row_set import RowSet, row_set


class Found(NamedTuple):
    """The rows of a step, and what a `WorkingSet` says of them, targets flat."""

    rows: RowSet
    target: Tensor
    inputs: Tensor | None
    drawn: Tensor | None
    positions: Tensor | None


def found_rows(
    negatives: Sampler, plan: GroupDraw | ListDraw, flat: Tensor, inputs: Tensor | None, words: Tensor, bound: int,
    impl: str,
) -> Found:  # fmt: skip
    """The rows that a step's draw, by ``words`` of a seed, its ``flat`` targets (N,) and its inputs name, at most
    ``bound``."""
    num_items, ignore_index = plan.num_items, plan.ignore_index
    counted = flat != ignore_index
    by_reference = resolve_impl(impl, flat.device) == "reference"
    drawn = flat.new_empty(0, dtype=torch.int32)
    if plan.num_drawn:
        drawn = _draw(flat, words, negatives.text, num_items, ignore_index, by_reference)
    is_item = counted & (flat >= 0) & (flat < num_items)
    parts = [drawn, torch.where(is_item, flat, -1).int()]
    if inputs is not None:
        parts.append(torch.where(inputs < num_items, inputs, -1).reshape(-1).int())
    chosen = row_set(torch.cat(parts), bound, impl=impl)
    total, of_drawn = len(chosen.ids), chosen.places[: len(drawn)]
    if isinstance(plan, ListDraw):
        given, positions = _lists(of_drawn, plan), None
        own = chosen.places[len(drawn) :][: len(flat)]
        # what is no item is none of the rows either
        places = own.masked_fill(~is_item, total).masked_fill(~counted, IGNORED)
    else:
        given, places, positions = drawn_rows(flat, chosen.places, total, plan, negatives.text, by_reference)
    of_inputs = None if inputs is None else chosen.places[len(drawn) + len(flat) :].view(inputs.shape)
    return Found(chosen, places, of_inputs, given, positions)


def _lists(places: Tensor, plan: ListDraw) -> Tensor | None:
    """The groups' lists of places; None where rows' targets are all there is."""
    if not plan.columns:
        return None
    lists = places.view(plan.num_groups, plan.columns)
    return lists.clamp(min=0) if plan.chooses else lists  # scores are taken of every column that is chosen from


def check_items(name: str, ids: Tensor, num_items: int, other: str) -> None:
    """Raise where ids are no items; ``other`` is what they could have been, too."""
    wrong = ids[(ids < 0) | (ids >= num_items)]
    if wrong.numel():
        raise ArgumentValueError(name, f"{other}an item in [0, {num_items})", int(wrong[0]))


def _plan(target: Tensor, sampler: str, num_items: int, ignore_index: int) -> GroupDraw | ListDraw:
    return plan_group_draw(sampler_of(sampler), len(target), num_items, ignore_index)


def _drawn(target: Tensor, seed: Tensor, sampler: str, num_items: int, ignore_index: int, by_reference: bool) -> Tensor:
    plan, slot_ends = _plan(target, sampler, num_items, ignore_index), None
    if isinstance(plan, ListDraw) and plan.draw.lists and plan.draw.lists.slot_parts:
        slot_ends = slot_ends_of(sampler_of(sampler), num_items, target.device)
    draw = _by_reference if by_reference else _by_kernels
    drawn = draw(target, seed, slot_ends, plan).view(plan.num_groups, -1)
    if isinstance(plan, ListDraw):  # those of groups without a row are none
        first = torch.arange(plan.num_groups, device=target.device)[:, None] * plan.group_size
        drawn = torch.where(first < (target != ignore_index).sum(), drawn, -1)
    return drawn.reshape(-1)


def _by_kernels(target: Tensor, seed: Tensor, slot_ends: Tensor | None, plan: GroupDraw | ListDraw) -> Tensor:
    from ...kernels.launch.group_draw import launch_group_draw

    ins = {"target": target, "seed": seed} | ({} if slot_ends is None else {"slot_ends": slot_ends})
    with torch.cuda.device_of(target):
        outs = {
            each.name: torch.empty(each.shape, dtype=DTYPES[each.dtype], device=target.device) for each in plan.buffers
        }
        launch_group_draw(outs, ins, plan)
    name, first = plan.result
    return outs[name].view(-1)[first : first + plan.num_drawn]


def _by_reference(target: Tensor, seed: Tensor, slot_ends: Tensor | None, plan: GroupDraw | ListDraw) -> Tensor:
    if isinstance(plan, ListDraw):
        none = target.new_empty(0)
        x = Operands(none, none, target, seed, none, slot_ends=slot_ends)
        return torch.cat([chunk.ids for chunk in chunks(x, plan.problem, lambda pool: pool.ids)]).int()
    low, high = (seed.long() & MASK).unbind()
    groups = torch.arange(plan.num_groups, device=target.device)
    items = plan.draws.items(arithmetic(target.device), (high, low), groups)
    has_rows = groups * plan.draws.group_size < (target != plan.ignore_index).sum()
    missing = plan.num_drawn // max(plan.num_groups, 1) - plan.draws.negatives
    return torch.nn.functional.pad(items.masked_fill(~has_rows[:, None], -1), (0, missing), value=-1).int()


def _fake_drawn(target, seed, sampler, num_items, ignore_index, by_reference):
    return target.new_empty(_plan(target, sampler, num_items, ignore_index).num_drawn, dtype=torch.int32)


_draw = operator(
    "draw_groups",
    "(Tensor target, Tensor seed, str sampler, SymInt num_items, SymInt ignore_index, bool by_reference) -> Tensor",
    _drawn,
    _fake_drawn,
)
