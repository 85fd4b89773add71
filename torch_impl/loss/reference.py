"""The loss and its closed-form gradients in plain torch, in chunks: what runs where there is no GPU.

Follows the draws of ``kernels.draws`` bit for bit and the formulas of ``cross_entropy.py``; memory stays near
CHUNK_ELEMENTS fp32 numbers, whatever the number of rows. Never an (N, K, D) tensor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.errors import ArgumentValueError
from ...kernels.negatives.history import check_history
from ...kernels.plan.problem import ELSEWHERE, Problem
from .candidates import CHUNK_ELEMENTS, Chunk, chunks
from .operands import Operands, Saved


class Rows(NamedTuple):
    """What the forward gives of each row; a negative's probability is exp((s - peak) - shift), as in the kernels."""

    loss: Tensor
    lse: Tensor
    peak: Tensor
    shift: Tensor
    average_dot: Tensor  # empty unless the scale's gradient may be asked for
    average: Tensor


class _Scores(NamedTuple):
    hidden: Tensor  # (T, G, D) fp32
    items: Tensor  # (T or 1, K, D) fp32
    ids: Tensor  # (T or 1, K), 0 where there is no candidate
    dot: Tensor  # (T, G, K)
    score: Tensor  # (T, G, K) capped
    slope: Tensor | float  # of the cap
    keep: Tensor  # (T, G, K)


def _cap(x: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | float]:
    """The capped score and its derivative, 1 / cosh^2: 1 - tanh^2 would cancel."""
    if softcap is None:
        return x, 1.0
    return softcap * torch.tanh(x / softcap), torch.cosh(x / softcap) ** -2


def _hidden(x: Operands, rows: Tensor, counted: Tensor) -> Tensor:
    """Hidden states of rows in fp32, zeros of those that do not count: what they hold times 0 may be NaN."""
    return torch.where(counted[..., None], x.input[rows].float(), 0.0)


def _scores(x: Operands, chunk: Chunk, p: Problem) -> _Scores:
    candidate = (chunk.ids >= 0) & (chunk.ids < p.num_items)
    ids = torch.where(candidate, chunk.ids, 0)
    hidden = _hidden(x, chunk.rows, chunk.counted)
    items = x.weight[None] if p.mode == "all" else x.weight[ids]
    items = items.to(x.input.dtype).float()  # rounded as the kernels round them
    dot = hidden @ items.transpose(1, 2)
    logits = x.scale * dot
    if x.bias is not None:
        logits = logits + x.bias.float()[ids][:, None, :]
    keep = candidate[:, None, :] & chunk.counted[:, :, None]
    if p.remove_accidental_hits:
        keep = keep & (ids[:, None, :] != x.target[chunk.rows][:, :, None])
    if x.users is not None:
        keep = keep & ~in_history(x, x.users[chunk.rows][:, :, None], ids[:, None, :], p)
    score, slope = _cap(logits, p.softcap)
    if x.log_weight is not None:
        score = score + x.log_weight[ids][:, None, :]
    return _Scores(hidden, items, ids, dot, score, slope, keep)


def _target_items(target: Tensor, p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(rows that count, those whose target is an item, the item or 0)."""
    counted = target != p.ignore_index
    has_item = counted & (target >= 0) & (target < p.num_items)
    return counted, has_item, torch.where(has_item, target, 0)


def _positive_scores(x: Operands, has_item: Tensor, item: Tensor, p: Problem) -> tuple[Tensor, Tensor | float, Tensor]:
    """(capped scores, their slopes, dot products) (N,) of the targets; NaN where there is none, minus infinity where it
    is another shard's."""
    dot = x.scale.new_empty(p.num_rows)
    for rows in torch.arange(p.num_rows, device=x.input.device).split(max(1, CHUNK_ELEMENTS // p.dim)):
        dot[rows] = (x.input[rows].float() * x.weight[item[rows]].to(x.input.dtype).float()).sum(1)
    logits = x.scale * dot
    if x.bias is not None:
        logits = logits + x.bias.float()[item]
    if p.history and x.users is not None:
        has_item = has_item & (x.users >= 0) & (x.users < p.history.num_users)
    score, slope = _cap(logits, p.softcap)
    score = torch.where(has_item, score, math.nan)
    return torch.where(_is_elsewhere(x.target, p), -math.inf, score), slope, dot


def _is_elsewhere(target: Tensor, p: Problem) -> Tensor:
    """Whether each row counts and has its positive in another shard."""
    return (target == ELSEWHERE) & p.is_shard


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own softplus returns x from 20 on."""
    return torch.logaddexp(x, torch.zeros_like(x))


def check_ranges(x: Operands, p: Problem) -> None:
    """Raise where a counted target, an id or a history is none; for devices whose values the host may read."""
    counted, has_item, _ = _target_items(x.target, p)
    wrong = x.target[counted & ~has_item & ~_is_elsewhere(x.target, p)]
    if wrong.numel():
        raise ArgumentValueError("target", f"ignore_index or an item in [0, {p.num_items})", int(wrong[0]))
    if x.ids is not None:
        ids = x.ids[counted] if p.mode == "row_ids" else x.ids
        wrong = ids[(ids < -1) | (ids >= p.num_items)]
        if wrong.numel():
            raise ArgumentValueError("negatives", f"-1 or an item in [0, {p.num_items})", int(wrong[0]))
    if x.users is not None and x.history_offsets is not None and x.history_items is not None:
        users = x.users[counted]
        check_history(users.numpy(), x.history_offsets.numpy(), x.history_items.numpy(), p.catalog)


def _known_users(x: Operands, p: Problem) -> Tensor:
    """The user of each item of the histories."""
    assert p.history
    assert x.history_offsets is not None
    return torch.repeat_interleave(
        torch.arange(p.history.num_users, device=x.target.device),
        x.history_offsets.diff(),
        output_size=p.history.num_known,
    )


def in_history(x: Operands, users: Tensor, ids: Tensor, p: Problem) -> Tensor:
    """Whether each id is one of the user's own items; shapes broadcast."""
    assert x.history_items is not None
    ids = ids if x.row_ids is None else x.row_ids[ids]
    if x.history_items.numel() == 0:
        return torch.zeros_like(users * ids, dtype=torch.bool)
    known = _known_users(x, p) * p.catalog + x.history_items
    wanted = users.long() * p.catalog + ids
    return known[torch.searchsorted(known, wanted).clamp(max=len(known) - 1)] == wanted


def _mass(x: Operands, rows: Tensor, kept: Tensor, item: Tensor, p: Problem) -> Tensor:
    """What the kept draws of rows stand for, in items: ``draw_weight`` each, or all that may be drawn, V - 1 or V (1 -
    q_t), or V without a target, without the user's own."""
    if p.correction in ("none", "pool"):
        return kept * p.draw_weight
    mass = torch.full_like(kept, p.catalog - 1)
    if x.log_weight is not None:
        mass = p.catalog - torch.exp(-x.log_weight[item])
    elsewhere = _is_elsewhere(x.target[rows], p)
    mass = torch.where(elsewhere, p.catalog, mass)
    if p.history and x.users is not None and x.history_items is not None:
        items, users = x.history_items, x.users[rows].clamp(0, p.history.num_users - 1)
        log_weight = x.log_weight if x.history_weight is None else x.history_weight
        weights = x.scale.new_ones(len(items)) if log_weight is None else torch.exp(-log_weight[items])
        of_users = x.scale.new_zeros(p.history.num_users).index_add_(0, _known_users(x, p), weights)
        of_target = torch.ones_like(mass) if x.log_weight is None else torch.exp(-x.log_weight[item])
        mass = mass - of_users[users] + torch.where(in_history(x, users, item, p) & ~elsewhere, of_target, 0.0)
    return mass.clamp(min=0)


def _choose(x: Operands, chunk: Chunk, p: Problem) -> Tensor:
    """The highest-scoring ids (T, K) of each tile's, by their largest score over its rows; NaN is the largest."""
    s = _scores(x, chunk, p)
    score = torch.where(s.score.isnan(), math.inf, s.score)
    best = torch.where(s.keep, score, -math.inf).amax(1)
    return chunk.ids.gather(1, torch.sort(best, dim=1, descending=True, stable=True).indices[:, : p.negatives])


def _softmax_rows(s: _Scores, kept: Tensor, positive: Tensor, mass: Tensor) -> tuple[Tensor, ...]:
    """(loss, lse, peak, shift, exp(-shift)) (T, G) of rows and exp(score - peak) (T, G, K) of the kept draws."""
    correction = torch.log(mass / kept.clamp(min=1))
    peak = torch.where(s.keep, s.score, -math.inf).amax(2)
    peak = torch.where(peak == -math.inf, 0.0, peak)  # nothing is kept, or weighs anything
    weights = torch.where(s.keep, torch.exp(s.score - peak[:, :, None]), 0.0)
    total = weights.sum(2)
    weighs = total != 0
    total = torch.where(weighs, total, 1.0)
    log_sum = torch.log(total)
    positive = torch.where(positive == math.inf, math.nan, positive)
    of_negatives = peak + (log_sum + correction)
    gap = torch.where(weighs | positive.isnan(), peak - positive + (log_sum + correction), -math.inf)
    loss, excess = softplus(gap), softplus(-gap)
    lse = torch.where(gap > 0, of_negatives + excess, positive + loss)
    return loss, lse, peak, log_sum + excess, torch.sigmoid(gap) / total, weights


def _binary_rows(s: _Scores, kept: Tensor, positive: Tensor, positive_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, 1 / (1 + m)) (T, G) of rows and sigmoid(score) (T, G, K) of the kept draws."""
    share = 1 / (kept + 1.0)
    terms = torch.where(s.keep, softplus(s.score), 0.0).sum(2)
    return (
        (positive_weight * softplus(-positive) + terms) * share,
        share,
        torch.where(s.keep, torch.sigmoid(s.score), 0.0),
    )


def forward(x: Operands, p: Problem) -> Rows:
    """loss, lse, peak, shift (N,) fp32 and the negatives' average (N, D) in input's dtype; see ``Rows``."""
    _, has_item, item = _target_items(x.target, p)
    positive, _, _ = _positive_scores(x, has_item, item, p)
    loss, lse, peak, shift = (x.scale.new_zeros(p.num_rows) for _ in range(4))
    average_dot = x.scale.new_zeros(p.num_rows if p.scale_grad else 0)
    average = torch.zeros_like(x.input)
    for chunk in chunks(x, p, lambda pool: _choose(x, pool, p)):
        s = _scores(x, chunk, p)
        kept = s.keep.sum(2).float()
        malformed = ((chunk.ids < -1) | (chunk.ids >= p.num_items)).any(1, keepdim=True)
        row_positive = torch.where(malformed, math.nan, positive[chunk.rows])
        if p.positive_weight is None:
            mass = _mass(x, chunk.rows, kept, item[chunk.rows], p)
            joined = torch.full_like(row_positive, -math.inf) if p.is_shard else row_positive
            row_loss, row_lse, row_peak, row_shift, factor, weights = _softmax_rows(s, kept, joined, mass)
            row_loss = row_positive if p.is_shard else row_loss
        else:
            row_loss, row_shift, weights = _binary_rows(s, kept, row_positive, p.positive_weight)
            factor, row_peak, row_lse = row_shift, row_positive, row_positive
        weights = weights * s.slope
        row_average = weights @ s.items * factor[:, :, None]
        take, to = chunk.counted, chunk.rows[chunk.counted]
        loss[to], lse[to] = row_loss[take], row_lse[take]
        peak[to], shift[to] = row_peak[take], row_shift[take]
        if p.scale_grad:
            average_dot[to] = ((weights * s.dot).sum(2) * factor)[take]
        average[to] = row_average[take].to(average.dtype)
    return Rows(loss, lse, peak, shift, average_dot, average)


def backward(x: Operands, saved: Saved, p: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, weight, bias and each row's part of the scale's; empty where they are not wanted."""
    device = x.input.device
    loss, peak, shift, average_dot, average, _, grad_loss, grad_lse = saved
    assert grad_lse is not None
    counted, has_item, item = _target_items(x.target, p)
    _, slope, dot = _positive_scores(x, has_item, item, p)
    of_negatives = grad_loss + grad_lse
    if p.is_shard:
        positive_grad, of_negatives = torch.where(_is_elsewhere(x.target, p), 0.0, grad_loss), grad_lse
    elif p.positive_weight is None:
        positive_grad = grad_lse * torch.exp(-loss) + grad_loss * torch.expm1(-loss)
    else:  # peak holds the positive's score
        positive_grad = -grad_loss * p.positive_weight * torch.sigmoid(-peak) * shift
    positive_grad = torch.where(counted, positive_grad * slope, 0.0)
    row_grad = torch.where(counted, of_negatives, 0.0)
    weight_grad = x.scale.new_zeros(x.weight.shape if p.wanted.weight else 0)
    bias_grad = x.scale.new_zeros(p.num_items if p.wanted.bias else 0)
    input_grad = torch.empty_like(x.input) if p.wanted.input else x.input.new_empty(0)
    scale_grad = x.scale.new_empty(0)
    if p.wanted.scale:
        scale_grad = torch.where(counted, row_grad * average_dot + positive_grad * dot, 0.0)
    for rows in torch.arange(p.num_rows, device=device).split(max(1, CHUNK_ELEMENTS // p.dim)):
        if p.wanted.input:
            positive = x.weight[item[rows]].to(x.input.dtype).float()
            grad = row_grad[rows, None] * average[rows].float() + positive_grad[rows, None] * positive
            input_grad[rows] = (x.scale * grad).to(x.input.dtype)
        if p.wanted.weight:
            hidden = _hidden(x, rows, counted[rows])
            weight_grad.index_add_(0, item[rows], positive_grad[rows, None] * hidden)
    if not p.wanted.items:
        return input_grad, weight_grad, bias_grad, scale_grad
    if p.wanted.bias:
        bias_grad.index_add_(0, item, positive_grad)
    for chunk in chunks(x, p, lambda pool: _choose(x, pool, p)):
        s = _scores(x, chunk, p)
        row_peak, row_shift = peak[chunk.rows][:, :, None], shift[chunk.rows][:, :, None]
        softmax = p.positive_weight is None
        probability = torch.exp((s.score - row_peak) - row_shift) if softmax else torch.sigmoid(s.score) * row_shift
        a = torch.where(s.keep, row_grad[chunk.rows][:, :, None] * probability * s.slope, 0.0)
        if p.wanted.weight:
            grads = a.transpose(1, 2) @ s.hidden
            if p.mode == "all":
                weight_grad += grads[0]
            else:
                weight_grad.index_add_(0, s.ids.flatten(), grads.flatten(0, 1))
        if p.wanted.bias:
            bias_grad.index_add_(0, s.ids.flatten(), a.sum(1).flatten())
    if x.bias is not None:
        bias_grad = bias_grad.to(x.bias.dtype)
    return input_grad, (x.scale * weight_grad).to(x.weight.dtype), bias_grad, scale_grad
