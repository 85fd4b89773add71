"""The loss in NumPy float64 with closed-form gradients: what every implementation is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

EMPTY_SLOT = -1
CHUNK_ROWS = 64


class Terms(NamedTuple):
    """How large the terms are of the sums that results are, which may cancel: the root of the sum of their squares; of
    dscale the sum of rows'."""

    lse: Float64  # (N,), the mean of its logits', by their probabilities
    dhidden: Float64  # (N, D)
    dtable: Float64  # (V, D)
    dbias: Float64  # (V,)
    dscale: float  # its dot products cancel too


@dataclass(frozen=True)
class OracleResult:
    """Per-row results and the gradients of ``sum(grad_loss * loss + grad_lse * lse)``."""

    loss: Float64  # (N,)
    lse: Float64  # (N,)
    dhidden: Float64  # (N, D)
    dtable: Float64  # (V, D)
    dbias: Float64  # (V,), also when no bias was given: the gradient a zero bias would have
    dscale: float
    kept: Int64  # (N,), the draws m_n that stay in the denominator
    terms: Terms | None = None  # what rounding errors are relative to; None of a yardstick's


@dataclass(frozen=True)
class _Scores:
    """Capped logits with what their backward pass needs."""

    dot: Float64  # e . c
    capped: Float64  # s
    slope: Float64  # h = ds / dx


@np.errstate(divide="ignore", invalid="ignore")  # logits of infinity, and log 0: no draws, or the edge V = 1
def oracle(
    hidden: NDArray[np.floating],
    table: NDArray[np.floating],
    target: NDArray[np.integer],
    ids: NDArray[np.integer] | None,
    *,
    bias: NDArray[np.floating] | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    ignore_index: int = -100,
    grad_loss: ArrayLike | None = None,
    grad_lse: ArrayLike | None = None,
    catalog_size: int | None = None,
    positive_weight: float | None = None,
    log_q: NDArray[np.floating] | None = None,
    logq_correction: bool = True,
    draw_weight: ArrayLike = 1.0,
    excluded: NDArray[np.bool_] | None = None,
) -> OracleResult:
    """Cross-entropy with negative sampling (CCE-, arXiv 2509.09682) and all of its gradients.

    ``x = scale e.c + b``, ``s = softcap tanh(x / softcap)``, ``z_0 = s_target``,
    ``z_j = s_j + log((V - 1) / m)``, ``lse = logsumexp(z)``, ``loss = lse - z_0``,
    where ``m`` counts the draws a row keeps.

    Shapes: hidden (N, D), table (V, D), target (N,), bias (V,), grad_loss and grad_lse (N,) (None: zeros);
    ids is (N, K) or shared (K,), with -1 for an empty slot, or None for every item of the catalog. An item
    that occurs twice in a row's ids is two draws. ``catalog_size`` is V where the table holds only the items that
    rows name.

    With ``log_q`` (V,), the log of the probability q_j with which each draw is item j, the correction is
    ``z_j = s_j - log(m q_j / (1 - q_target))``; without ``logq_correction`` z_j = s_j + log(draw_weight), one
    or (N, V).

    ``excluded`` (N, V) says which items are no negatives of a row: their draws are dropped, and V - 1 and 1 - q_target
    count or weigh the others alone.

    With a ``positive_weight`` beta it is binary cross-entropy instead (BCE, BCE+; gBCE, arXiv 2308.07192):
    ``loss = (beta log(1 + exp(-s_target)) + sum_j log(1 + exp(s_j))) / (1 + m)``, lse 0 and grad_lse unused; m = 0
    leaves the positive's term.

    Edge cases, which implementations must share:

    * A draw equal to the target is dropped, unless ``remove_accidental_hits`` is False: then it is a draw
      like any other, beside the positive itself, and m counts it. Every item with hits dropped has m = V - 1:
      full softmax cross-entropy exactly.
    * m = 0: loss is 0 without a gradient; lse is z_0, so grad_lse still reaches the target's logit.
    * V = 1: hits dropped is m = 0. Hits kept has the correction log(0 / m) = -inf, which removes the
      negatives again: the same loss 0, lse z_0.
    * An ignored row (target == ignore_index, looked at before any range check) has loss 0, lse 0, no
      gradient and m = 0; its hidden row and ids are not read.
    * A draw with a logit of -inf (an item masked out by its bias) is a draw like any other, of weight 0: m counts it.
      Where all of a row's draws weigh 0, its loss is 0 without a gradient and lse is z_0, as for m = 0. Else a
      target at -inf has the loss +inf and p_0 = 0, as with F.cross_entropy. Under a softcap -inf becomes -softcap.
    * A logit of +inf or NaN, the target's or a kept draw's: loss, lse and dhidden of the row are NaN, and what it adds
      to the gradients of its target and kept draws. A draw that is dropped may hold anything. The sigmoids of binary
      cross-entropy have no need of this: log(1 + exp(x)) and its slope are taken at infinity as they are.
    * A target outside [0, V), or an id outside it other than -1: loss, lse and dhidden of the row are NaN,
      its m is 0, and the gradient of every valid item that the row names, and of the scale, is NaN.
    """
    num_rows, num_items = len(hidden), len(table)
    u = np.zeros(num_rows) if grad_loss is None else np.asarray(grad_loss, np.float64)
    v = np.zeros(num_rows) if grad_lse is None else np.asarray(grad_lse, np.float64)
    target = np.asarray(target, np.int64)
    row_ids = None
    if ids is not None:
        row_ids = np.broadcast_to(np.asarray(ids, np.int64), (num_rows, ids.shape[-1]))

    loss, lse, kept = np.zeros(num_rows), np.zeros(num_rows), np.zeros(num_rows, np.int64)
    dhidden, dtable = np.zeros(hidden.shape), np.zeros(table.shape)
    dbias, dscale_rows = np.zeros(num_items), np.zeros(num_rows)
    hidden_squares, table_squares, bias_squares = np.zeros(hidden.shape), np.zeros(table.shape), np.zeros(num_items)
    lse_sizes, dscale_sizes = np.zeros((2, num_rows))

    active = target != ignore_index
    invalid = active & _names_unknown_item(target, row_ids, num_items)
    for row in np.flatnonzero(invalid):
        named = np.append(np.arange(num_items) if row_ids is None else row_ids[row], target[row])
        named = named[(named >= 0) & (named < num_items)]
        dtable[named] = dbias[named] = loss[row] = lse[row] = dhidden[row] = dscale_rows[row] = np.nan

    def scores(dot: Float64, items: Int64) -> _Scores:
        x = logit_scale * dot + (0.0 if bias is None else np.asarray(bias[items], np.float64))
        if softcap is None:
            return _Scores(dot, x, np.ones_like(x))
        # 1 - tanh^2 written as sech^2: the difference cancels where tanh saturates.
        decay = np.exp(-2 * np.abs(x / softcap))
        return _Scores(dot, softcap * np.tanh(x / softcap), 4 * decay / (1 + decay) ** 2)

    def add_gradients(
        rows: Int64, items: Int64, e: Float64, c: Float64, c_target: Float64, a: Float64, a_target: Float64,
        dot: Float64, dot_target: Float64,
    ) -> None:  # fmt: skip
        """From the gradients of the scores before the cap: a (rows, items) of the negatives, a_target (rows,)."""
        dhidden[rows] = logit_scale * (a @ c + a_target[:, None] * c_target)
        dtable[items] += logit_scale * (a.T @ e)
        np.add.at(dtable, target[rows], logit_scale * a_target[:, None] * e)
        dbias[items] += a.sum(0)
        np.add.at(dbias, target[rows], a_target)
        dscale_rows[rows] = (a * dot).sum(1) + a_target * dot_target
        square, square_target = a**2, a_target**2
        of_dots = np.maximum(dot**2, e**2 @ (c**2).T), np.maximum(dot_target**2, (e**2 * c_target**2).sum(1))
        dscale_sizes[rows] = np.sqrt((square * of_dots[0]).sum(1) + square_target * of_dots[1])
        hidden_squares[rows] = square @ c**2 + square_target[:, None] * c_target**2
        table_squares[items] += square.T @ e**2
        bias_squares[items] += square.sum(0)
        np.add.at(table_squares, target[rows], square_target[:, None] * e**2)
        np.add.at(bias_squares, target[rows], square_target)

    rows_left = np.flatnonzero(active & ~invalid)
    for start in range(0, len(rows_left), CHUNK_ROWS):
        rows = rows_left[start : start + CHUNK_ROWS]
        items, draws = _count_draws(None if row_ids is None else row_ids[rows], len(rows), num_items)
        hits = items[None, :] == target[rows, None]
        if remove_accidental_hits:
            draws = np.where(hits, 0, draws)
        own = np.zeros((len(rows), num_items), bool)  # excluded, and not the target, which is out anyway
        if excluded is not None:
            draws = np.where(excluded[rows][:, items], 0, draws)
            own = excluded[rows] & (np.arange(num_items) != target[rows, None])
        m = draws.sum(1)

        # Converting after the gather keeps a float64 copy of a very large table out of memory.
        e, c = np.asarray(hidden[rows], np.float64), np.asarray(table[items], np.float64)
        c_target = np.asarray(table[target[rows]], np.float64)
        negative = scores(e @ c.T, items)
        positive = scores(np.einsum("nd,nd->n", e, c_target), target[rows])

        kept[rows] = m
        if positive_weight is not None:
            share = u[rows] / (1 + m)
            terms = _of_draws(draws, draws * np.logaddexp(0, negative.capped))
            loss[rows] = (positive_weight * np.logaddexp(0, -positive.capped) + terms.sum(1)) / (1 + m)
            a = _of_draws(draws, share[:, None] * draws * expit(negative.capped) * negative.slope)
            a_target = -share * positive_weight * expit(-positive.capped) * positive.slope
            add_gradients(rows, items, e, c, c_target, a, a_target, negative.dot, positive.dot)
            continue
        if not logq_correction:
            correction = np.log(np.broadcast_to(draw_weight, (num_rows, num_items))[rows][:, items])
        elif log_q is None:
            left = (catalog_size or num_items) - 1 - own.sum(1)
            correction = np.log(left / np.maximum(m, 1))[:, None]
        else:
            left = -np.expm1(np.asarray(log_q[target[rows]], np.float64))  # 1 - q_target
            left = left - own @ np.exp(np.asarray(log_q, np.float64))
            correction = np.log(left / np.maximum(m, 1))[:, None] - np.where(
                draws > 0, np.asarray(log_q[items], np.float64), 0
            )
        # all draws of an item as one term
        z = _of_draws(draws, negative.capped + np.log(draws) + correction, -np.inf)
        peak = np.maximum(z.max(axis=1, initial=-np.inf), -1e300)  # finite: -inf - -inf would be NaN
        negatives_lse = peak + np.log(np.exp(z - peak[:, None]).sum(1))
        z_positive = np.where(positive.capped == np.inf, np.nan, positive.capped)
        nothing = negatives_lse == -np.inf
        of_nothing = np.where(np.isnan(z_positive), np.nan, 0.0)
        loss[rows] = np.where(nothing, of_nothing, np.logaddexp(0, negatives_lse - z_positive))
        lse[rows] = np.logaddexp(z_positive, negatives_lse)
        p = _of_draws(draws * ~nothing[:, None], np.exp(z - lse[rows, None]))
        b = np.zeros(num_items) if bias is None else np.where(np.isfinite(bias), bias, 0).astype(np.float64)
        size = np.sqrt(logit_scale**2 * (e**2 @ (c**2).T) + b[items] ** 2 + correction**2)
        size_target = np.sqrt(logit_scale**2 * (e**2 * c_target**2).sum(1) + b[target[rows]] ** 2)
        lse_sizes[rows] = _of_draws(p > 0, p * size).sum(1) + np.exp(z_positive - lse[rows]) * size_target

        # 1 - p_0 is summed from the negatives: 1 - exp(-loss) would cancel for a confident row.
        a = _of_draws(draws, (u[rows] + v[rows])[:, None] * p * negative.slope)
        a_target = (v[rows] * np.exp(-loss[rows]) - u[rows] * p.sum(1)) * positive.slope
        add_gradients(rows, items, e, c, c_target, a, a_target, negative.dot, positive.dot)

    of_hidden, of_table = (abs(logit_scale) * np.sqrt(squares) for squares in (hidden_squares, table_squares))
    terms = Terms(lse_sizes, of_hidden, of_table, np.sqrt(bias_squares), float(dscale_sizes.sum()))
    return OracleResult(loss, lse, dhidden, dtable, dbias, float(dscale_rows.sum()), kept, terms)


def _of_draws(draws: NDArray[Any], values: NDArray[Any], others: float = 0.0) -> Float64:
    """``values`` (rows, items) of the items that rows drew, whatever the others' are."""
    return np.where(draws > 0, values, others)


def _names_unknown_item(target: Int64, ids: Int64 | None, num_items: int) -> NDArray[np.bool_]:
    unknown = (target < 0) | (target >= num_items)
    if ids is not None:
        unknown |= ((ids != EMPTY_SLOT) & ((ids < 0) | (ids >= num_items))).any(1)
    return unknown


def _count_draws(ids: Int64 | None, num_rows: int, num_items: int) -> tuple[Int64, Int64]:
    """The items these rows drew (U,), and how often each row drew each, (rows, U)."""
    if ids is None:
        return np.arange(num_items), np.ones((num_rows, num_items), np.int64)
    items, column = np.unique(ids, return_inverse=True)
    draws = np.zeros((num_rows, len(items)), np.int64)
    np.add.at(draws, (np.arange(num_rows)[:, None], column.reshape(ids.shape)), 1)
    real = items != EMPTY_SLOT
    return items[real].astype(np.int64), draws[:, real]


def reduce_oracle(
    loss: Float64,
    target: NDArray[np.integer],
    sample_weight: NDArray[np.floating] | None,
    reduction: str,
    ignore_index: int = -100,
) -> Float64:
    """The reduced loss: ``w loss`` (N,) for none, ``sum(w loss)`` for sum, ``sum(w loss) / sum(w)`` for mean.

    Sums run over the non-ignored rows; a mean over no rows, or over rows whose weights sum to 0, is 0.
    """
    weight = _row_weight(target, sample_weight, ignore_index)
    weighted = weight * loss
    if reduction == "none":
        return weighted
    total = weighted.sum()
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / weight.sum() if weight.sum() else np.zeros(())
    raise ValueError(f"reduction: expected none, mean or sum, got {reduction!r}")


def upstream(
    loss: Float64,
    target: NDArray[np.integer],
    sample_weight: NDArray[np.floating] | None,
    reduction: str,
    ignore_index: int = -100,
    *,
    grad_output: ArrayLike = 1.0,
) -> tuple[Float64, Float64]:
    """The gradients (u, dweight), both (N,), of the reduced loss with respect to loss_n and to sample_weight.

    ``grad_output`` is the gradient of the reduced loss: (N,) for none, a scalar otherwise.
    """
    reduced = reduce_oracle(loss, target, sample_weight, reduction, ignore_index)
    weight = _row_weight(target, sample_weight, ignore_index)
    active = np.asarray(target) != ignore_index
    grad = np.broadcast_to(np.asarray(grad_output, np.float64), weight.shape)
    if reduction == "mean":
        if not weight.sum():
            return np.zeros(weight.shape), np.zeros(weight.shape)
        grad, loss = grad / weight.sum(), loss - reduced
    return grad * weight, np.where(active, grad * loss, 0.0)


def _row_weight(target: NDArray[np.integer], sample_weight: NDArray[np.floating] | None, ignore_index: int) -> Float64:
    weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    return np.where(np.asarray(target) == ignore_index, 0.0, weight)
