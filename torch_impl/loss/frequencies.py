"""A running estimate of how often items are targets, by which in-batch negatives are corrected."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import check_ignore_index, check_rate
from .ops import INTEGER_DTYPES


def update_frequencies(frequencies: Tensor, target: Tensor, *, rate: float, ignore_index: int = -100) -> Tensor:
    """The estimate after one more batch: ``(1 - rate) q + rate n / N``, n_j the times that item j is a target of the N
    counted rows.

    ``frequencies`` (V,) float32 are q before, best of the training data, or 1 / V each; they stay as they are where no
    row counts. The loss takes ``log_q=update_frequencies(..).log()``, the batch's own targets included, so that none of
    them has probability 0. ``target`` (...) holds items or ``ignore_index``. Nothing waits for the device. After Yi et
    al., Sampling-bias-corrected neural modeling (RecSys 2019), with an average in place of the steps between
    occurrences.

    Raises ArgumentTypeError or ArgumentValueError naming the argument.
    """
    check_rate(rate)
    if not isinstance(frequencies, Tensor) or frequencies.dtype != torch.float32:
        raise ArgumentTypeError(
            "frequencies", "a float32 tensor", str(getattr(frequencies, "dtype", type(frequencies).__name__))
        )
    if frequencies.ndim != 1 or not len(frequencies):
        raise ArgumentValueError("frequencies", "shape (V,)", tuple(frequencies.shape))
    if not isinstance(target, Tensor) or target.dtype not in INTEGER_DTYPES:
        raise ArgumentTypeError("target", "an integer tensor", str(getattr(target, "dtype", type(target).__name__)))
    if target.device != frequencies.device:
        raise ArgumentValueError("target", f"device {frequencies.device}, that of frequencies", target.device)
    check_ignore_index(ignore_index)
    with torch.no_grad():
        items = target.reshape(-1).long()
        counted = (items != ignore_index) & (items >= 0) & (items < len(frequencies))
        counts = torch.zeros_like(frequencies).index_add_(0, torch.where(counted, items, 0), counted.float())
        total = counted.sum()
        return torch.where(total > 0, (1 - rate) * frequencies + rate * counts / total.clamp(min=1), frequencies)
