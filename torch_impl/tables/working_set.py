"""The working set of a step: the rows of a catalog that it reads, known before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.draws.permutation import MASK
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED, check_ignore_index
from ...kernels.negatives.samplers import Sampler, sampler_of
from ...kernels.numbers import as_index
from ...kernels.plan.group_draw import GroupDraw, plan_group_draw
from ...kernels.plan.problem import NO_ID
from ...kernels.plan.row_set import DrawnRows
from ..loss.candidates import arithmetic
from ..loss.ops import DTYPES, INTEGER_DTYPES, operator
from ..loss.row_losses import comparable, resolve_impl
from ..loss.seeds import seed_words
from ..loss.working_set import WorkingSet
from .row_set import row_set


def working_set(
    negatives: Sampler,
    target: Tensor,
    *,
    num_items: int,
    seed: int | Tensor | None,
    inputs: Tensor | None = None,
    ignore_index: int = -100,
    impl: str = "auto",
) -> WorkingSet:
    """The rows that a step with these negatives, targets and inputs reads of a table of ``num_items``.

        ws = working_set(negatives, target, num_items=V, seed=seed, inputs=inputs)
        rows = table(ws)                               # (T, D), of an ItemTable or any function of ws.ids
        hidden = encoder(rows, ws.inputs)              # what it embeds, by place
        loss = sampled_linear_cross_entropy(hidden, rows, ws.target, ws)

    The draw is that of ``sampled_linear_cross_entropy`` on the whole table with the same ``seed``, and loss and lse
    have the same bits; nothing of the catalog's size is made. T is the number of drawn places, targets and inputs
    together, or ``num_items`` if that is less.

    Args:
        negatives: ``UniformNegatives`` that groups of rows share.
        target: (...) integer items in [0, V), or ``ignore_index``.
        num_items: V.
        seed: as of the loss, which takes none beside a working set.
        inputs: integer items of any shape that the step embeds; negative ones name no row and stay as they are.
        ignore_index: target of rows to leave out; the loss must be given the same.
        impl: "triton", "reference", or "auto": triton on CUDA.

    Raises ArgumentTypeError or ArgumentValueError, naming the argument: for draws of more than half the catalog, of
    which a working set would save nothing, and for negatives of single rows. On a CPU also for items that there are
    not; on CUDA such a target makes its row NaN.
    """
    num_items = as_index("num_items", num_items)
    check_ignore_index(ignore_index)
    for name, ids in (("target", target), ("inputs", inputs)):
        if ids is not None and (not isinstance(ids, Tensor) or ids.dtype not in INTEGER_DTYPES):
            got = str(ids.dtype) if isinstance(ids, Tensor) else type(ids).__name__
            raise ArgumentTypeError(name, "an integer tensor", got)
    if inputs is not None and inputs.device != target.device:
        raise ArgumentValueError("inputs", f"device {target.device}, that of target", inputs.device)
    plan = plan_group_draw(negatives, target.numel(), num_items, ignore_index)
    flat = comparable(target, ignore_index).reshape(-1).contiguous()
    counted = flat != ignore_index
    if not target.is_cuda and not torch.compiler.is_compiling():
        _check_ranges("target", flat[counted], num_items, f"{ignore_index}, the ignore_index, or ")
        if inputs is not None:
            _check_ranges("inputs", inputs[inputs >= 0], num_items, "a negative number or ")
    words = seed_words(seed, target.device, flat)
    by_reference = resolve_impl(impl, target.device) == "reference"
    drawn = _draw(flat, words, negatives.text, num_items, ignore_index, by_reference)
    is_item = counted & (flat >= 0) & (flat < num_items)
    parts = [drawn, torch.where(is_item, flat, -1).int()]
    if inputs is not None:
        parts.append(torch.where(inputs < num_items, inputs, -1).reshape(-1).int())
    every = torch.cat(parts)
    chosen = row_set(every, min(len(every), num_items), impl=impl)
    if by_reference:
        drawn, places, positions = _describe_by_reference(flat, chosen.places, plan, len(chosen.ids))
    else:
        of_plan = negatives.text, num_items, ignore_index
        drawn, places, positions = _describe(flat, chosen.places, *of_plan, len(chosen.ids))
    of_inputs = None if inputs is None else chosen.places[plan.num_drawn + plan.num_rows :].view(inputs.shape)
    return WorkingSet(
        chosen.ids, chosen.count, places.view(target.shape), of_inputs, drawn, positions, words, negatives, num_items,
        ignore_index,
    )  # fmt: skip


def _described(
    target: Tensor, places: Tensor, sampler: str, num_items: int, ignore_index: int, total: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``drawn``, the targets' places and ``positions``, by the ``places`` of draws and targets among so many rows."""
    from ...kernels.launch.row_set import launch_drawn_rows

    plan = DrawnRows(_plan(target, sampler, num_items, ignore_index), total)
    with torch.cuda.device_of(target):
        outs = {each.name: places.new_empty(each.shape) for each in plan.buffers}
        launch_drawn_rows(outs, {"target": target, "places": places}, plan)
    return outs["drawn"], outs["target_places"], outs["positions"]


def _describe_by_reference(
    target: Tensor, places: Tensor, plan: GroupDraw, total: int
) -> tuple[Tensor, Tensor, Tensor]:
    num_drawn, num_rows, device = plan.num_drawn, plan.num_rows, places.device
    drawn, own = places[:num_drawn], places[num_drawn:][:num_rows]
    is_item = (target != plan.ignore_index) & (target >= 0) & (target < plan.draws.num_items)
    # each row is drawn once at most: by which place
    place = torch.arange(num_drawn, dtype=torch.int32, device=device)
    drawn_at = torch.full((total + 1,), -1, dtype=torch.int32, device=device)
    drawn_at.scatter_(0, torch.where(drawn >= 0, drawn, total).long(), place)
    drawn_at = drawn_at[:total]
    alone = torch.arange(total, dtype=torch.int32, device=device).masked_fill(drawn_at >= 0, -1)
    at = drawn_at[own.clamp(min=0).long()]
    positions = torch.where(at >= 0, at, own + num_drawn).masked_fill(~is_item, NO_ID)
    # what is no item is none of the rows either
    other = torch.where(target == plan.ignore_index, IGNORED, total)
    return torch.cat([drawn, alone]), torch.where(is_item, own, other).int(), positions


def _check_ranges(name: str, ids: Tensor, num_items: int, other: str) -> None:
    wrong = ids[(ids < 0) | (ids >= num_items)]
    if wrong.numel():
        raise ArgumentValueError(name, f"{other}an item in [0, {num_items})", int(wrong[0]))


def _plan(target: Tensor, sampler: str, num_items: int, ignore_index: int) -> GroupDraw:
    return plan_group_draw(sampler_of(sampler), len(target), num_items, ignore_index)


def _drawn(target: Tensor, seed: Tensor, sampler: str, num_items: int, ignore_index: int, by_reference: bool) -> Tensor:
    plan = _plan(target, sampler, num_items, ignore_index)
    if by_reference:
        return _by_reference(target, seed, plan)
    from ...kernels.launch.group_draw import launch_group_draw

    with torch.cuda.device_of(target):
        outs = {
            each.name: torch.empty(each.shape, dtype=DTYPES[each.dtype], device=target.device) for each in plan.buffers
        }
        launch_group_draw(outs, {"target": target, "seed": seed}, plan)
    return outs["drawn"]


def _by_reference(target: Tensor, seed: Tensor, plan: GroupDraw) -> Tensor:
    low, high = (seed.long() & MASK).unbind()
    groups = torch.arange(plan.num_groups, device=target.device)
    items = plan.draws.items(arithmetic(target.device), (high, low), groups)
    has_rows = groups * plan.draws.group_size < (target != plan.ignore_index).sum()
    missing = plan.num_drawn // max(plan.num_groups, 1) - plan.draws.negatives
    items = torch.nn.functional.pad(items.masked_fill(~has_rows[:, None], -1), (0, missing), value=-1)
    return items.int().reshape(-1)


def _fake_drawn(target, seed, sampler, num_items, ignore_index, by_reference):
    return target.new_empty(_plan(target, sampler, num_items, ignore_index).num_drawn, dtype=torch.int32)


def _fake_described(target, places, sampler, num_items, ignore_index, total):
    plan = DrawnRows(_plan(target, sampler, num_items, ignore_index), total)
    return tuple(places.new_empty(each.shape) for each in plan.buffers[:3])


_describe = operator(
    "describe_draws",
    "(Tensor target, Tensor places, str sampler, SymInt num_items, SymInt ignore_index, SymInt total) "
    "-> (Tensor, Tensor, Tensor)",
    _described,
    _fake_described,
)
_draw = operator(
    "draw_groups",
    "(Tensor target, Tensor seed, str sampler, SymInt num_items, SymInt ignore_index, bool by_reference) -> Tensor",
    _drawn,
    _fake_drawn,
)
