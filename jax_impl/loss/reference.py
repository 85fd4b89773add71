"""The loss and its closed-form gradients in plain JAX, in chunks: what runs where there is no GPU.

Follows the draws of ``kernels.draws`` bit for bit and the formulas of ``cross_entropy.py``; memory stays near
CHUNK_ELEMENTS fp32 numbers, whatever the number of rows. Never an (N, K, D) array. Shapes are static: rows
that are ignored leave places empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import as_varying, varying_axes
from ...kernels.plan.problem import ELSEWHERE, Problem, ceil_div
from .candidates import Layout, in_history, layout_of
from .operands import Gradients, Operands, Rows


class Chunk(NamedTuple):
    """Some tiles with their scores; T tiles of G rows and K candidates."""

    rows: Array  # (T, G), 0 where a place is empty
    counted: Array  # (T, G)
    hidden: Array  # (T, G, D) fp32
    items: Array  # (T or 1, K, D) fp32
    ids: Array  # (T or 1, K), 0 where there is no candidate
    malformed: Array  # (T or 1, 1): whether an id is neither an item nor an empty slot
    dot: Array  # (T, G, K)
    score: Array  # (T, G, K) capped
    slope: Array | float  # of the cap
    keep: Array  # (T, G, K)
    item: Array  # (T, G) the target, 0 where it is no item
    positive_item: Array  # (T, G, D) fp32
    positive_dot: Array  # (T, G)
    elsewhere: Array  # (T, G) whether the row counts and its positive is another shard's
    positive: Array  # (T, G) the target's capped score, NaN where it is no item, minus infinity where it is elsewhere
    positive_slope: Array | float


def _cap(x: Array, softcap: float | None) -> tuple[Array, Array | float]:
    """The capped score and its derivative, 1 - tanh^2; both from one exponential, which XLA rounds better than its
    tanh."""
    if softcap is None:
        return x, 1.0
    u = -2 * jnp.abs(x / softcap)
    t = jnp.exp(u)
    return softcap * jnp.sign(x) * -jnp.expm1(u) / (1 + t), 4 * t / ((1 + t) * (1 + t))


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)  # a GPU would round to TF32


def _chunk(x: Operands, p: Problem, layout: Layout, tiles: Array) -> Chunk:
    """``tiles`` (T,), those past the last one empty."""
    last = layout.rows.shape[0] - 1
    rows = jnp.where(tiles[:, None] <= last, layout.rows[jnp.minimum(tiles, last)], -1)
    drawn = layout.ids(jnp.minimum(tiles, last))
    if p.chooses:
        pool = _scored(x, p, rows, drawn)
        score = jnp.where(jnp.isnan(pool.score), jnp.inf, pool.score)
        best = jnp.where(pool.keep, score, -jnp.inf).max(1)
        drawn = jnp.take_along_axis(drawn, highest(best, p.negatives), 1)
    return _scored(x, p, rows, drawn)


def highest(scores: Array, number: int) -> Array:
    """The places of the highest scores of each row, those of equal scores in their order."""
    return jnp.argsort(-scores, axis=1, stable=True)[:, :number]


def _scored(x: Operands, p: Problem, rows: Array, drawn: Array) -> Chunk:
    """Tiles of ``rows`` (T, G), -1 where a place is empty, with candidates ``drawn`` (T, K) or (1, K)."""
    counted, rows = rows >= 0, jnp.maximum(rows, 0)
    candidate = (drawn >= 0) & (drawn < p.num_items)
    ids = jnp.where(candidate, drawn, 0)
    # zeros of rows that do not count: what these hold times 0 may be NaN
    target, hidden = x.target[rows], jnp.where(counted[:, :, None], x.input[rows].astype(jnp.float32), 0.0)
    items = x.weight.astype(jnp.float32)[None] if p.mode == "all" else x.weight[ids].astype(jnp.float32)
    has_item = (target >= 0) & (target < p.num_items)
    item = jnp.where(has_item, target, 0)
    positive_item = x.weight[item].astype(jnp.float32)
    dot, positive_dot = _product(hidden, items.swapaxes(1, 2)), (hidden * positive_item).sum(2)
    logits, positive = x.scale * dot, x.scale * positive_dot
    if x.bias is not None:
        bias = x.bias.astype(jnp.float32)
        logits, positive = logits + bias[ids][:, None, :], positive + bias[item]
    keep = candidate[:, None, :] & counted[:, :, None]
    if p.remove_accidental_hits:
        keep = keep & (ids[:, None, :] != target[:, :, None])
    if x.users is not None and p.history:
        keep = keep & ~in_history(x, x.users[rows][:, :, None], ids[:, None, :], p)
        has_item = has_item & (x.users[rows] >= 0) & (x.users[rows] < p.history.num_users)
    malformed = ((drawn < -1) | (drawn >= p.num_items)).any(1, keepdims=True)
    (score, slope), (positive, positive_slope) = _cap(logits, p.softcap), _cap(positive, p.softcap)
    if x.log_weight is not None:
        score = score + x.log_weight[ids][:, None, :]
    elsewhere = counted & (target == ELSEWHERE) & p.is_shard
    positive = jnp.where(elsewhere, -jnp.inf, jnp.where(has_item, positive, jnp.nan))
    return Chunk(
        rows, counted, hidden, items, ids, malformed, dot, score, slope, keep,
        item, positive_item, positive_dot, elsewhere, positive, positive_slope,
    )  # fmt: skip


def _scan(layout: Layout, step: Callable[[Any, Array], tuple[Any, Any]], carry: Any) -> tuple[Any, Any]:
    """``step(carry, tiles)`` over chunks of tiles; the carry, and each row's part of the results, 0 of ignored rows."""
    tiles, size = layout.rows.shape[0], min(layout.tiles_a_chunk, layout.rows.shape[0])
    chunks = ceil_div(tiles, size)
    carry, results = jax.lax.scan(step, carry, jnp.arange(chunks * size, dtype=jnp.int32).reshape(chunks, size))
    # an ignored row's place is another row's or nobody's
    counted = layout.rows.reshape(-1)[layout.places] == jnp.arange(len(layout.places))

    def of_rows(result: Array) -> Array:
        values = result.reshape(-1, *result.shape[3:])[layout.places]
        return jnp.where(counted.reshape(-1, *[1] * (values.ndim - 1)), values, 0)

    return carry, jax.tree.map(of_rows, results)


def _mass(x: Operands, c: Chunk, kept: Array, p: Problem) -> Array:
    """What the kept draws of rows stand for, in items: ``draw_weight`` each, or all that may be drawn, V - 1 or V (1 -
    q_t), or V without a target, without the user's own."""
    if p.correction in ("none", "pool"):
        return kept * p.draw_weight
    mass = jnp.full_like(kept, p.catalog - 1)
    if x.log_weight is not None:
        mass = p.catalog - jnp.exp(-x.log_weight[c.item])
    mass = jnp.where(c.elsewhere, p.catalog, mass)
    if p.history and x.users is not None and x.history_items is not None:
        users = jnp.clip(x.users[c.rows], 0, p.history.num_users - 1)
        log_weight = x.log_weight if x.history_weight is None else x.history_weight
        weights = (
            jnp.ones(p.history.num_known, jnp.float32) if log_weight is None else jnp.exp(-log_weight[x.history_items])
        )
        known = jnp.arange(p.history.num_known, dtype=jnp.int32)
        of_items = jnp.searchsorted(x.history_offsets, known, side="right") - 1  # type: ignore[arg-type]
        of_users = jnp.zeros(p.history.num_users, jnp.float32).at[of_items].add(weights)
        of_target = jnp.ones_like(mass) if x.log_weight is None else jnp.exp(-x.log_weight[c.item])
        mass = mass - of_users[users] + jnp.where(in_history(x, users, c.item, p) & ~c.elsewhere, of_target, 0.0)
    return jnp.maximum(mass, 0.0)


def _softmax_rows(c: Chunk, kept: Array, positive: Array, mass: Array) -> tuple[Array, ...]:
    """(loss, lse, peak, shift, exp(-shift)) (T, G) of rows and exp(score - peak) (T, G, K) of the kept draws."""
    correction = jnp.log(mass / jnp.maximum(kept, 1.0))
    peak = jnp.where(c.keep, c.score, -jnp.inf).max(2)
    peak = jnp.where(peak == -jnp.inf, 0.0, peak)  # nothing is kept, or weighs anything
    weights = jnp.where(c.keep, jnp.exp(c.score - peak[:, :, None]), 0.0)
    total = weights.sum(2)
    weighs = total != 0
    total = jnp.where(weighs, total, 1.0)
    log_sum = jnp.log(total)
    positive = jnp.where(positive == jnp.inf, jnp.nan, positive)
    of_negatives = peak + (log_sum + correction)
    gap = jnp.where(weighs | jnp.isnan(positive), peak - positive + (log_sum + correction), -jnp.inf)
    loss, excess = jax.nn.softplus(gap), jax.nn.softplus(-gap)
    lse = jnp.where(gap > 0, of_negatives + excess, positive + loss)
    return loss, lse, peak, log_sum + excess, jax.nn.sigmoid(gap) / total, weights


def _binary_rows(c: Chunk, kept: Array, positive: Array, positive_weight: float) -> tuple[Array, Array, Array]:
    """(loss, 1 / (1 + m)) (T, G) of rows and sigmoid(score) (T, G, K) of the kept draws."""
    share = 1 / (kept + 1.0)
    terms = jnp.where(c.keep, jax.nn.softplus(c.score), 0.0).sum(2)
    return (
        (positive_weight * jax.nn.softplus(-positive) + terms) * share,
        share,
        jnp.where(c.keep, jax.nn.sigmoid(c.score), 0.0),
    )


def forward(x: Operands, p: Problem) -> Rows:
    """loss, lse, peak, shift (N,) fp32 and the negatives' average (N, D) in input's dtype; see ``Rows``."""
    layout = layout_of(x, p)

    def step(_: None, tiles: Array) -> tuple[None, Rows]:
        c = _chunk(x, p, layout, tiles)
        kept = c.keep.sum(2).astype(jnp.float32)
        positive = jnp.where(c.malformed, jnp.nan, c.positive)
        if p.positive_weight is None:
            joined = jnp.full_like(positive, -jnp.inf) if p.is_shard else positive
            loss, lse, peak, shift, share, weights = _softmax_rows(c, kept, joined, _mass(x, c, kept, p))
            loss = positive if p.is_shard else loss
        else:
            loss, share, weights = _binary_rows(c, kept, positive, p.positive_weight)
            lse, peak, shift = positive, positive, share
        weights = weights * c.slope
        average = _product(weights, c.items) * share[:, :, None]
        average_dot = (weights * c.dot).sum(2) * share
        return None, Rows(loss, lse, peak, shift, average_dot, average.astype(x.input.dtype))

    rows: Rows = _scan(layout, step, None)[1]
    return rows if p.scale_grad else rows._replace(average_dot=None)


def backward(x: Operands, saved: Rows, grad_loss: Array, grad_lse: Array, p: Problem) -> Gradients:
    """Gradients of input, weight, bias and each row's part of the scale's, as far as they are wanted."""
    layout = layout_of(x, p)
    saved_average_dot = saved.average_dot if saved.average_dot is not None else jnp.zeros(p.num_rows, jnp.float32)
    of_negatives = grad_loss + grad_lse
    if p.is_shard:
        positive_part, of_negatives = grad_loss, grad_lse
    elif p.positive_weight is None:
        positive_part = grad_lse * jnp.exp(-saved.loss) + grad_loss * jnp.expm1(-saved.loss)
    else:  # peak holds the positive's score
        positive_part = -grad_loss * p.positive_weight * jax.nn.sigmoid(-saved.peak) * saved.shift

    def step(sums: tuple[Array, Array], tiles: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        weight_grad, bias_grad = sums
        c = _chunk(x, p, layout, tiles)
        of_positive = jnp.where(c.counted & ~c.elsewhere, positive_part[c.rows] * c.positive_slope, 0.0)
        of_row = jnp.where(c.counted, of_negatives[c.rows], 0.0)
        shift = saved.shift[c.rows][:, :, None]
        softmax = p.positive_weight is None
        peak = saved.peak[c.rows][:, :, None]
        probability = jnp.exp((c.score - peak) - shift) if softmax else jax.nn.sigmoid(c.score) * shift
        a = jnp.where(c.keep, of_row[:, :, None] * probability * c.slope, 0.0)
        if p.wanted.weight:
            grads = _product(a.swapaxes(1, 2), c.hidden)
            weight_grad = weight_grad.at[c.item].add(of_positive[:, :, None] * c.hidden)
            weight_grad = weight_grad + grads[0] if p.mode == "all" else weight_grad.at[c.ids].add(grads)
        if p.wanted.bias:
            bias_grad = bias_grad.at[c.item].add(of_positive).at[c.ids].add(a.sum(1))
        average = saved.average[c.rows].astype(jnp.float32)
        input_grad = x.scale * (of_row[:, :, None] * average + of_positive[:, :, None] * c.positive_item)
        scale_grad = of_row * saved_average_dot[c.rows] + of_positive * c.positive_dot
        return (weight_grad, bias_grad), (input_grad.astype(x.input.dtype), scale_grad)

    weight_rows, bias_size = (p.num_items if wanted else 0 for wanted in (p.wanted.weight, p.wanted.bias))
    start = jnp.zeros((weight_rows, p.dim), jnp.float32), jnp.zeros(bias_size, jnp.float32)
    (weight_grad, bias_grad), (input_grad, scale_grad) = _scan(
        layout, step, as_varying(start, varying_axes((x, grad_loss)))
    )
    return Gradients(
        input_grad if p.wanted.input else None,
        (x.scale * weight_grad).astype(x.weight.dtype) if p.wanted.weight else None,
        bias_grad.astype(x.bias.dtype) if p.wanted.bias and x.bias is not None else None,
        scale_grad if p.wanted.scale else None,
    )
