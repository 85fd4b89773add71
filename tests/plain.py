"""The loss as one would write it in eager PyTorch: the yardstick for rounding errors, not the truth."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tests.oracle import EMPTY_SLOT, OracleResult


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))  # torch's own returns x from 20 on


def plain(
    hidden: NDArray[np.floating],
    table: NDArray[np.floating],
    target: NDArray[np.integer],
    ids: NDArray[np.integer] | None,
    *,
    dtype: torch.dtype,
    bias: NDArray[np.floating] | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    ignore_index: int = -100,
    grad_loss: NDArray[np.floating],
    grad_lse: NDArray[np.floating],
    positive_weight: float | None = None,
    log_q: NDArray[np.floating] | None = None,
    logq_correction: bool = True,
    draw_weight: ArrayLike = 1.0,
    excluded: NDArray[np.bool_] | None = None,
) -> OracleResult:
    """The oracle's results by gathering (N, K, D) items and calling autograd.

    Inputs are rounded to ``dtype`` and gradients come back in it; everything between, and loss, lse and
    dscale, is float32 (float64 for float64). Takes what `oracle` takes, but targets and ids of rows that are not
    ignored must be in range.
    """
    work = torch.float64 if dtype == torch.float64 else torch.float32

    def leaf(array: NDArray[np.floating]) -> Tensor:
        return torch.tensor(array).to(dtype).requires_grad_()

    num_items = len(table)
    active = torch.tensor(target) != ignore_index
    e, c = leaf(np.where(active[:, None], hidden, 0)), leaf(table)
    b = leaf(np.zeros(num_items) if bias is None else bias)
    scale = torch.tensor(logit_scale, dtype=work, requires_grad=True)
    goal = torch.tensor(target).where(active, 0)
    draws = torch.arange(num_items) if ids is None else torch.tensor(ids)
    draws = draws.expand(len(goal), -1).where(active[:, None], EMPTY_SLOT)
    keep = draws != EMPTY_SLOT
    if remove_accidental_hits:
        keep = keep & (draws != goal[:, None])
    draws = draws.clamp(min=0)
    own = torch.zeros(len(goal), num_items, dtype=torch.bool)
    if excluded is not None:
        own = torch.tensor(excluded)
        keep = keep & ~own.gather(1, draws)
        own = own.scatter(1, goal[:, None], False)

    def score(items: Tensor) -> Tensor:
        dots = (c.to(work)[items] @ e.to(work)[:, :, None]).squeeze(-1)
        x = scale * dots + b.to(work)[items]
        return x if softcap is None else softcap * torch.tanh(x / softcap)

    m = keep.sum(1)
    negatives, positive = score(draws), score(goal[:, None])
    if positive_weight is None:
        if logq_correction:
            correction = (num_items - 1 - own.sum(1)).to(work).log()[:, None]
            if log_q is not None:
                q = torch.tensor(log_q).to(work)
                left = -torch.expm1(q[goal]) - torch.where(own, q.exp(), 0.0).sum(1)
                correction = left.log()[:, None] - torch.where(keep, q[draws], 0.0)
            negatives = negatives + correction - m.clamp(min=1).to(work).log()[:, None]
        else:
            weight = torch.tensor(np.broadcast_to(draw_weight, (len(goal), num_items)), dtype=work)
            negatives = negatives + weight.gather(1, draws).log()
        z = torch.cat([positive, negatives.masked_fill(~keep, -math.inf)], 1)
        z = z + 0 * z.clamp(min=0)  # +inf is NaN from here on, as in F.cross_entropy
        weighs = (z[:, 1:] != -math.inf).any(1)  # else nothing is left of the row
        lse = torch.where(weighs, z.where(weighs[:, None], 0.0).logsumexp(1), positive[:, 0])
        loss = torch.where(active & weighs, lse - positive[:, 0], 0.0)
        lse = torch.where(active, lse, 0.0)
    else:
        of_positive = positive_weight * softplus(-positive[:, 0])
        loss = (of_positive + torch.where(keep, softplus(negatives), 0.0).sum(1)) / (1 + m)
        loss, lse = torch.where(active, loss, 0.0), torch.zeros_like(loss)

    u, v = (torch.tensor(grad, dtype=work).where(active, 0) for grad in (grad_loss, grad_lse))
    grads = torch.autograd.grad((u * loss + v * lse).sum(), (e, c, b, scale))
    de, dc, db, dscale = (grad.double().numpy() for grad in grads)
    return OracleResult(
        loss=loss.detach().double().numpy(),
        lse=lse.detach().double().numpy(),
        dhidden=de,
        dtable=dc,
        dbias=db,
        dscale=float(dscale),
        kept=torch.where(active, m, 0).numpy(),
    )
