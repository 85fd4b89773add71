"""One update of the rows of a table that a step touches: an operator, by the kernel or in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...kernels.draws.permutation import MASK
from ...kernels.draws.rounding import rounding_bits
from ...kernels.plan.row_update import RULES, RowRule, RowUpdate
from ..loss.candidates import arithmetic
from .read import check_weight

_LOWER_HALF = 0xFFFF  # of a float32, which a bfloat16 does not have


def update_rows(
    weight: Tensor, first: Tensor | None, second: Tensor, ids: Tensor, count: Tensor, grad: Tensor, rate: Tensor,
    step: Tensor, seed: Tensor | None, rule: RowRule, impl: str, *, apart: bool = False,
) -> None:  # fmt: skip
    """Moves the first ``count`` rows ``ids`` of ``weight`` and of its states, in place; ``apart``: ``weight`` (T, D) is
    these rows alone.

    weight (V, D) float32 or bfloat16; first (V, D) and second (V,) or (V, D) float32, as `RowRule` has them; ids (T,)
    int32, count (1,) int32; grad (T, D); rate (1,) float32; step (1,) int32, the number of this update, from 1; seed
    (2,) int32 words (low, high), by which a bfloat16 weight is rounded at random, None to round to the nearest.
    """
    constants = RULES.index(rule.rule), rule.beta1, rule.beta2, rule.eps, rule.weight_decay
    operands = weight, first, second, ids, count, grad, rate, step, seed
    torch.ops.cce_minus.update_rows(*operands, *constants, apart, impl == "reference")


def _update_rows(weight, first, second, ids, count, grad, rate, step, seed, number, *constants) -> None:
    *of_rule, apart, by_reference = constants
    check_weight(weight)
    if not len(ids):
        return
    rule = RowRule(RULES[number], *of_rule)
    if by_reference:
        _by_reference(weight, first, second, ids, count, grad, rate, step, seed, rule, apart)
        return
    from ...kernels.launch.row_update import launch_row_update

    dim, dtype = weight.shape[1], str(weight.dtype).removeprefix("torch.")
    plan = RowUpdate(rule, len(ids), len(second), dim, dtype, seed is not None, apart)
    outs = {"weight": weight, "second": second} | ({} if first is None else {"first": first})
    ins = {"ids": ids, "count": count, "grad": grad.contiguous(), "rate": rate, "step": step}
    with torch.cuda.device_of(weight):
        launch_row_update(outs, ins if seed is None else {**ins, "seed": seed}, plan)


torch.library.define(
    "cce_minus::update_rows",
    "(Tensor(a!) weight, Tensor(b!)? first, Tensor(c!) second, Tensor ids, Tensor count, Tensor grad, Tensor rate, "
    "Tensor step, Tensor? seed, int rule, float beta1, float beta2, float eps, float weight_decay, bool apart, "
    "bool reference) -> ()",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.impl("cce_minus::update_rows", ("cpu", "cuda"))(_update_rows)
torch.library.register_fake("cce_minus::update_rows")(lambda *args: None)


def _by_reference(
    weight: Tensor, first: Tensor | None, second: Tensor, ids: Tensor, count: Tensor, grad: Tensor, rate: Tensor,
    step: Tensor, seed: Tensor | None, rule: RowRule, apart: bool,
) -> None:  # fmt: skip
    # Places behind the last row do what it does: the same numbers are written to it again.
    place = torch.arange(len(ids), device=ids.device).minimum(count - 1).clamp(min=0)
    row = ids[place].long()
    grad, known = grad[place].float(), second[row]
    mean_square = grad.square().mean(1)
    moments: list[tuple[Tensor, Tensor, Tensor]] = []
    if rule.rule == "rowwise_adagrad":
        known = known + mean_square
        move = grad * (rate / (known.sqrt() + rule.eps))[:, None]
    else:
        assert first is not None
        left_1, left_2 = _left(step, rule.beta1), _left(step, rule.beta2)
        moment = rule.beta1 * first[row] + (1 - rule.beta1) * grad
        moments.append((first, row, moment))
        squares = mean_square if rule.rule == "partial_rowwise_adam" else grad.square()
        known = rule.beta2 * known + (1 - rule.beta2) * squares
        if rule.rule == "partial_rowwise_adam":
            move = moment * (rate / left_1 / ((known / left_2).sqrt() + rule.eps))[:, None]
        else:
            move = moment * (rate * left_2.sqrt() / left_1) / (known.sqrt() + rule.eps)
    of_weight = place if apart else row
    moved = weight[of_weight].float() * (1 - rate * rule.weight_decay) - move
    if weight.dtype == torch.bfloat16:
        moved = _upper_halves(moved, row, step, seed)
    for table, at, rows in ((weight, of_weight, moved), (second, row, known), *moments):
        table[at] = torch.where((count > 0).view(-1, *[1] * (rows.ndim - 1)), rows.to(table.dtype), table[at])


def _left(step: Tensor, beta: float) -> Tensor:
    """1 - beta^step (1,)."""
    return -torch.expm1(step.float() * math.log(beta)) if beta else torch.ones_like(step, dtype=torch.float32)


def _upper_halves(x: Tensor, row: Tensor, step: Tensor, seed: Tensor | None) -> Tensor:
    """fp32 numbers that a bfloat16 holds; at random by ``seed``, or else the nearest."""
    if seed is None:
        return x.bfloat16()
    xp, columns = arithmetic(x.device), torch.arange(x.shape[1], device=x.device)
    low, high = (seed.long() & MASK).unbind()
    bits = rounding_bits(xp, (high[None], low[None]), step.long(), row, columns)
    word = x.contiguous().view(torch.int32)
    rounded = ((word + bits.int()) & ~_LOWER_HALF).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x)
