"""The loss and its closed-form gradients in plain torch, in chunks: what runs where there is no GPU.

Follows the draws of ``kernels.draws`` bit for bit and the formulas of ``torch_impl.loss``; memory stays near CHUNK_ELEMENTS fp32
numbers, whatever the number of rows. Never an (N, K, D) tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.draws import row_places
from ..kernels.errors import ArgumentValueError
from ..kernels.permutation import MASK, Arithmetic
from ..kernels.problem import Problem
from ..kernels.slots import SlotDraws

CHUNK_ELEMENTS = 1 << 22


class Rows(NamedTuple):
    """What the forward gives of each row; a negative's probability is exp((s - peak) - shift), as in the kernels."""

    loss: Tensor
    lse: Tensor
    peak: Tensor
    shift: Tensor
    average_dot: Tensor  # empty unless the scale's gradient may be asked for
    average: Tensor


class Chunk(NamedTuple):
    """Tiles of rows that share candidates: rows (T, G), which of them count, and ids (T, K) or (1, K)."""

    rows: Tensor
    counted: Tensor
    ids: Tensor


def _walk(step, x: Tensor, is_outside) -> Tensor:
    while (outside := is_outside(x)).any():
        x = torch.where(outside, step(x), x)
    return x


def arithmetic(device: torch.device) -> Arithmetic:
    """torch's words are int64 below 2^32: it has no full set of uint32 operations."""

    def words(value) -> Tensor:
        return torch.as_tensor(value, dtype=torch.int64, device=device)

    return Arithmetic(u32=words, where=torch.where, walk=_walk)


def slot_ids(seed: Tensor, slot_ends: Tensor, num_groups: int, draws: SlotDraws) -> Tensor:
    """The lists (groups, K) int32 that groups draw by slots, each slot's item by bisection."""
    words = seed.long() & MASK
    groups = torch.arange(num_groups, device=seed.device).split(max(1, CHUNK_ELEMENTS // draws.negatives))
    xp, ends = arithmetic(seed.device), slot_ends.long()
    lists = [torch.searchsorted(ends, draws.draw(xp, (words[1], words[0]), some), right=True) for some in groups]
    return torch.cat(lists).int()


def _chunks(target: Tensor, ids: Tensor | None, seed: Tensor, p: Problem) -> Iterator[Chunk]:
    device = target.device
    counted = target != p.ignore_index
    per_tile = p.negatives * (p.dim + 1)
    if p.mode in ("all", "shared_ids"):
        shared = torch.arange(p.num_items, device=device) if ids is None else ids
        size = max(1, CHUNK_ELEMENTS // p.negatives)
        for rows in torch.arange(p.num_rows, device=device).split(size):
            yield Chunk(rows[None], counted[rows][None], shared[None])
    elif p.mode == "row_ids":
        assert ids is not None
        for rows in torch.arange(p.num_rows, device=device).split(max(1, CHUNK_ELEMENTS // per_tile)):
            yield Chunk(rows[:, None], counted[rows][:, None], ids[rows])
    else:
        xp = arithmetic(device)
        words = seed.long() & MASK
        seed_words = words[1], words[0]
        ranks = torch.cumsum(counted, 0) - 1
        group = p.group_size
        total = torch.clamp(counted.sum(), min=1)
        places = row_places(xp, seed_words, torch.clamp(ranks, min=0), total, p.shuffle_rows)
        tiles = -(-p.num_rows // group)
        table = torch.full((tiles * group + 1,), -1, device=device)
        table[torch.where(counted, places, tiles * group)] = torch.arange(p.num_rows, device=device)
        table = table[:-1].view(tiles, group)
        for index in torch.arange(tiles, device=device).split(max(1, CHUNK_ELEMENTS // (per_tile + group * p.negatives))):
            rows = table[index]
            yield Chunk(rows.clamp(min=0), rows >= 0, _tile_ids(ids, xp, seed_words, index, p))


def _tile_ids(ids: Tensor | None, xp: Arithmetic, seed: tuple[Tensor, Tensor], tiles: Tensor, p: Problem) -> Tensor:
    """The candidates (T, K) of tiles: their own lists, or what they draw."""
    if ids is not None:
        return ids[tiles]
    assert p.draws is not None
    return p.draws.items(xp, seed, tiles)


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


def _scores(
    input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, scale: Tensor, log_weight: Tensor | None,
    chunk: Chunk, p: Problem,
) -> _Scores:  # fmt: skip
    candidate = (chunk.ids >= 0) & (chunk.ids < p.num_items)
    ids = torch.where(candidate, chunk.ids, 0)
    hidden = input[chunk.rows].float()
    items = weight[None] if p.mode == "all" else weight[ids]
    items = items.to(input.dtype).float()  # rounded as the kernels round them
    dot = hidden @ items.transpose(1, 2)
    x = scale * dot
    if bias is not None:
        x = x + bias.float()[ids][:, None, :]
    keep = candidate[:, None, :] & chunk.counted[:, :, None]
    if p.remove_accidental_hits:
        keep = keep & (ids[:, None, :] != target[chunk.rows][:, :, None])
    score, slope = _cap(x, p.softcap)
    if log_weight is not None:
        score = score + log_weight[ids][:, None, :]
    return _Scores(hidden, items, ids, dot, score, slope, keep)


def _target_items(target: Tensor, p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(rows that count, those whose target is an item, the item or 0)."""
    counted = target != p.ignore_index
    has_item = counted & (target >= 0) & (target < p.num_items)
    return counted, has_item, torch.where(has_item, target, 0)


def _positive_scores(
    input: Tensor, weight: Tensor, has_item: Tensor, item: Tensor, bias: Tensor | None, scale: Tensor, p: Problem
) -> tuple[Tensor, Tensor | float, Tensor]:
    """(capped scores, their slopes, dot products) (N,) of the targets; NaN where there is none."""
    dot = torch.empty(p.num_rows, device=input.device)
    for rows in torch.arange(p.num_rows, device=input.device).split(max(1, CHUNK_ELEMENTS // p.dim)):
        dot[rows] = (input[rows].float() * weight[item[rows]].to(input.dtype).float()).sum(1)
    x = scale * dot
    if bias is not None:
        x = x + bias.float()[item]
    score, slope = _cap(x, p.softcap)
    return torch.where(has_item, score, math.nan), slope, dot


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's own softplus returns x from 20 on."""
    return torch.logaddexp(x, torch.zeros_like(x))


def check_ranges(target: Tensor, ids: Tensor | None, p: Problem) -> None:
    """Raise where a counted target or an id is no item; for devices whose values the host may read."""
    counted, has_item, _ = _target_items(target, p)
    wrong = target[counted & ~has_item]
    if wrong.numel():
        raise ArgumentValueError("target", f"ignore_index or an item in [0, {p.num_items})", int(wrong[0]))
    if ids is not None:
        wrong = ids[(ids < -1) | (ids >= p.num_items)]
        if wrong.numel():
            raise ArgumentValueError("negatives", f"-1 or an item in [0, {p.num_items})", int(wrong[0]))


def _mass(kept: Tensor, item: Tensor, log_weight: Tensor | None, p: Problem) -> Tensor | int:
    """What kept draws stand for: V - 1 items, V (1 - q_t) where items weigh 1 / (V q), or themselves."""
    if p.correction == "none":
        return kept
    return p.num_items - 1 if log_weight is None else p.num_items - torch.exp(-log_weight[item])


def _softmax_rows(
    s: _Scores, kept: Tensor, positive: Tensor, mass: Tensor | int, p: Problem
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, peak, shift, exp(-shift)) (T, G) of rows and exp(score - peak) (T, G, K) of the kept draws."""
    correction = torch.log(mass / kept.clamp(min=1))
    peak = torch.where(kept > 0, s.score.masked_fill(~s.keep, -math.inf).amax(2), 0.0)
    weights = torch.where(s.keep, torch.exp(s.score - peak[:, :, None]), 0.0)
    total = torch.where(kept > 0, weights.sum(2), 1.0)
    log_sum = torch.log(total)
    gap = torch.where(kept > 0, peak - positive + (log_sum + correction), -math.inf)
    gap = torch.where(positive.isnan(), math.nan, gap)
    return softplus(gap), peak, log_sum + softplus(-gap), torch.sigmoid(gap) / total, weights


def _binary_rows(s: _Scores, kept: Tensor, positive: Tensor, positive_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, 1 / (1 + m)) (T, G) of rows and sigmoid(score) (T, G, K) of the kept draws."""
    share = 1 / (kept + 1.0)
    terms = torch.where(s.keep, softplus(s.score), 0.0).sum(2)
    return (positive_weight * softplus(-positive) + terms) * share, share, torch.where(s.keep, torch.sigmoid(s.score), 0.0)


def forward(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    ids: Tensor | None,
    bias: Tensor | None,
    seed: Tensor,
    scale: Tensor,
    log_weight: Tensor | None,
    p: Problem,
) -> Rows:
    """loss, lse, peak, shift (N,) fp32 and the negatives' average (N, D) in input's dtype; see ``Rows``."""
    _, has_item, item = _target_items(target, p)
    positive, _, _ = _positive_scores(input, weight, has_item, item, bias, scale, p)
    loss, lse, peak, shift = (torch.zeros(p.num_rows, device=input.device) for _ in range(4))
    average_dot = torch.zeros(p.num_rows if p.scale_grad else 0, device=input.device)
    average = torch.zeros_like(input)
    for chunk in _chunks(target, ids, seed, p):
        s = _scores(input, weight, target, bias, scale, log_weight, chunk, p)
        kept = s.keep.sum(2)
        malformed = ((chunk.ids < -1) | (chunk.ids >= p.num_items)).any(1, keepdim=True)
        row_positive = torch.where(malformed, math.nan, positive[chunk.rows])
        if p.positive_weight is None:
            row_loss, row_peak, row_shift, factor, weights = _softmax_rows(
                s, kept, row_positive, _mass(kept, item[chunk.rows], log_weight, p), p
            )
            row_lse = row_positive + row_loss
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
        average[to] = torch.where(kept[take][:, None] > 0, row_average[take], 0.0).to(average.dtype)
    return Rows(loss, lse, peak, shift, average_dot, average)


def backward(
    input: Tensor, weight: Tensor, target: Tensor, ids: Tensor | None, bias: Tensor | None, seed: Tensor, scale: Tensor,
    log_weight: Tensor | None, loss: Tensor, peak: Tensor, shift: Tensor, average_dot: Tensor, average: Tensor, grad_loss: Tensor,
    grad_lse: Tensor, p: Problem,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of input, weight, bias (empty without one) and each row's part of the scale's."""
    counted, has_item, item = _target_items(target, p)
    _, slope, dot = _positive_scores(input, weight, has_item, item, bias, scale, p)
    if p.positive_weight is None:
        positive_grad = grad_lse * torch.exp(-loss) + grad_loss * torch.expm1(-loss)
    else:  # peak holds the positive's score
        positive_grad = -grad_loss * p.positive_weight * torch.sigmoid(-peak) * shift
    positive_grad = torch.where(counted, positive_grad * slope, 0.0)
    row_grad = torch.where(counted, grad_loss + grad_lse, 0.0)
    weight_grad = torch.zeros(weight.shape, device=input.device)
    bias_grad = torch.zeros(p.num_items if bias is not None else 0, device=input.device)
    input_grad = torch.empty_like(input)
    scale_grad = torch.empty(0, device=input.device)
    if p.scale_grad:
        scale_grad = torch.where(counted, row_grad * average_dot + positive_grad * dot, 0.0)
    for rows in torch.arange(p.num_rows, device=input.device).split(max(1, CHUNK_ELEMENTS // p.dim)):
        hidden = input[rows].float()
        grad = (
            row_grad[rows, None] * average[rows].float() + positive_grad[rows, None] * weight[item[rows]].to(input.dtype).float()
        )
        input_grad[rows] = (scale * grad).to(input.dtype)
        weight_grad.index_add_(0, item[rows], positive_grad[rows, None] * hidden)
    if bias is not None:
        bias_grad.index_add_(0, item, positive_grad)
    for chunk in _chunks(target, ids, seed, p):
        s = _scores(input, weight, target, bias, scale, log_weight, chunk, p)
        row_peak, row_shift = peak[chunk.rows][:, :, None], shift[chunk.rows][:, :, None]
        softmax = p.positive_weight is None
        probability = torch.exp((s.score - row_peak) - row_shift) if softmax else torch.sigmoid(s.score) * row_shift
        a = torch.where(s.keep, row_grad[chunk.rows][:, :, None] * probability * s.slope, 0.0)
        grads = a.transpose(1, 2) @ s.hidden
        if p.mode == "all":
            weight_grad += grads[0]
        else:
            weight_grad.index_add_(0, s.ids.flatten(), grads.flatten(0, 1))
        if bias is not None:
            bias_grad.index_add_(0, s.ids.flatten(), a.sum(1).flatten())
    if bias is not None:
        bias_grad = bias_grad.to(bias.dtype)
    return input_grad, (scale * weight_grad).to(weight.dtype), bias_grad, scale_grad
