"""Tensors of one number that calls read, made once."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_KEPT = 64
_kept: dict[tuple[object, ...], Tensor] = {}


def constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1,) ``value`` on the current device, to be read by work on the current stream, which also fills it.

    Graphs replay their own: one that is captured fills a new tensor.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return torch.full((1,), value, dtype=dtype, device=device)
    stream = 0
    if device.type == "cuda":
        stream = torch._C._cuda_getCurrentRawStream(device.index)  # type: ignore[attr-defined]
    key = value, str(value), dtype, device, stream  # by its text 0.0 is not -0.0
    tensor = _kept.get(key)
    if tensor is None:
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        with torch.inference_mode(False):  # it serves other calls, too
            tensor = _kept[key] = torch.full((1,), value, dtype=dtype, device=device)
    return tensor
