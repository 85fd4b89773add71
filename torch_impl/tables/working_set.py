"""The working set of a step: the rows of a catalog that it reads, known before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.draws.permutation import MASK
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED, check_history_arrays, check_ignore_index, check_own_log_q
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler, sampler_of
from ...kernels.numbers import as_index
from ...kernels.plan.group_draw import GroupDraw, ListDraw, plan_group_draw
from ..loss.candidates import arithmetic, chunks
from ..loss.list_operands import row_log_weights, slot_ends_of
from ..loss.operands import Operands
from ..loss.ops import DTYPES, INTEGER_DTYPES, operator
from ..loss.row_losses import comparable, history_specs, resolve_impl, spec_of
from ..loss.seeds import seed_words
from ..loss.working_set import WorkingSet
from .drawn_rows import drawn_rows
from .row_set import row_set


def working_set(
    negatives: Sampler,
    target: Tensor,
    *,
    num_items: int,
    seed: int | Tensor | None,
    inputs: Tensor | None = None,
    ignore_index: int = -100,
    history: History | None = None,
    log_q: Tensor | None = None,
    impl: str = "auto",
) -> WorkingSet:
    """The rows that a step with these negatives, targets and inputs reads of a table of ``num_items``.

        ws = working_set(negatives, target, num_items=V, seed=seed, inputs=inputs)
        rows = table(ws)                               # (T, D), of an ItemTable or any function of ws.ids
        hidden = encoder(rows, ws.inputs)              # what it embeds, by place
        loss = sampled_linear_cross_entropy(hidden, rows, ws.target, ws)

    The draw is that of ``sampled_linear_cross_entropy`` on the whole table with the same ``seed``, and loss and lse
    have the same bits; nothing of the catalog's size is made but a sampler's tables of probabilities, once. T is the
    number of drawn places, targets and inputs together, or ``num_items`` if that is less.

    Args:
        negatives: any sampler of part of the catalog but draws of single rows (``group_size`` 1).
        target: (...) integer items in [0, V), or ``ignore_index``.
        num_items: V.
        seed: as of the loss, which takes none beside a working set.
        inputs: integer items of any shape that the step embeds; negative ones name no row and stay as they are.
        ignore_index: target of rows to leave out; the loss must be given the same.
        log_q: (V,) as of the loss, which takes none beside a working set: the log of how often items are targets, where
            in-batch negatives are.
        history: as of the loss, which takes none beside a working set; of items in [0, V). Beside known probabilities
            it needs them of all V items.
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
    if history is not None:
        check_history_arrays(history_specs(history) or (), tuple(target.shape))
    for name, other in (("inputs", inputs), ("log_q", log_q), *(("history", each) for each in history or ())):
        if isinstance(other, Tensor) and other.device != target.device:
            raise ArgumentValueError(name, f"device {target.device}, that of target", other.device)
    plan = plan_group_draw(negatives, target.numel(), num_items, ignore_index)
    check_own_log_q(negatives, None if log_q is None else spec_of("log_q", log_q), num_items)
    flat = comparable(target, ignore_index).reshape(-1).contiguous()
    counted = flat != ignore_index
    if not target.is_cuda and not torch.compiler.is_compiling():
        _check_ranges("target", flat[counted], num_items, f"{ignore_index}, the ignore_index, or ")
        if inputs is not None:
            _check_ranges("inputs", inputs[inputs >= 0], num_items, "a negative number or ")
    words = seed_words(seed, target.device, flat)
    by_reference = resolve_impl(impl, target.device) == "reference"
    drawn = flat.new_empty(0, dtype=torch.int32)
    if plan.num_drawn:
        drawn = _draw(flat, words, negatives.text, num_items, ignore_index, by_reference)
    is_item = counted & (flat >= 0) & (flat < num_items)
    parts = [drawn, torch.where(is_item, flat, -1).int()]
    if inputs is not None:
        parts.append(torch.where(inputs < num_items, inputs, -1).reshape(-1).int())
    every = torch.cat(parts)
    chosen = row_set(every, min(len(every), num_items), impl=impl)
    total, of_drawn = len(chosen.ids), chosen.places[: len(drawn)]
    if isinstance(plan, ListDraw):
        given, positions = _lists(of_drawn, plan), None
        own = chosen.places[len(drawn) :][: len(flat)]
        # what is no item is none of the rows either
        places = own.masked_fill(~is_item, total).masked_fill(~counted, IGNORED)
    else:
        given, places, positions = drawn_rows(flat, chosen.places, total, plan, negatives.text, by_reference)
    of_inputs = None if inputs is None else chosen.places[len(drawn) + len(flat) :].view(inputs.shape)
    log_weights = row_log_weights(chosen.ids, negatives, num_items, log_q, history is not None)
    return WorkingSet(
        chosen.ids, chosen.count, places.view(target.shape), of_inputs, given, positions, log_weights[0], history,
        log_weights[1], words, negatives, num_items, ignore_index,
    )  # fmt: skip


def _lists(places: Tensor, plan: ListDraw) -> Tensor | None:
    """The groups' lists of places; None where rows' targets are all there is."""
    if not plan.columns:
        return None
    lists = places.view(plan.num_groups, plan.columns)
    return lists.clamp(min=0) if plan.chooses else lists  # scores are taken of every column that is chosen from


def _check_ranges(name: str, ids: Tensor, num_items: int, other: str) -> None:
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
