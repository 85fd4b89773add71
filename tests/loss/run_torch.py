"""Run a case through the public PyTorch API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from cce_minus.kernels import History
from cce_minus.torch_impl import sampled_linear_binary_cross_entropy, sampled_linear_cross_entropy
from cce_minus.torch_impl.loss import ops
from torch import Tensor

from tests.loss.expected import SEED, Expected, Result, negatives_of, options, softmax_options


def to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


@contextlib.contextmanager
def poisoned_outputs() -> Iterator[None]:
    """Every buffer that the operator hands to a kernel holds NaN, or a huge integer, before it is written."""
    empty = ops._empty

    def poisoned(layout, device):
        tensors = empty(layout, device)
        for tensor in tensors.values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else 2**31 - 1)
        return tensors

    ops._empty = poisoned
    try:
        yield
    finally:
        ops._empty = empty


def run_torch(want: Expected, impl: str, device: str = "cpu") -> Result:
    """Loss, lse and gradients of a case, on poisoned outputs."""
    with poisoned_outputs():
        return _run(want, impl, device)


def _run(want: Expected, impl: str, device: str) -> Result:
    case, inputs = want.case, want.inputs

    def leaf(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(device, want.dtype, memory_format=torch.preserve_format).requires_grad_()

    hidden, table = leaf(inputs.hidden), leaf(inputs.table)
    if not case.contiguous:
        table = leaf(np.ascontiguousarray(inputs.table.T))
    bias = None if inputs.bias is None else leaf(inputs.bias)
    weight = (
        None if inputs.sample_weight is None else torch.tensor(inputs.sample_weight, device=device, requires_grad=True)
    )
    scale = torch.tensor(case.logit_scale, device=device, requires_grad=True)
    negatives = negatives_of(case, inputs)
    # JAX's integers in half precision on a GPU, so that its tests find these kernels compiled
    ints = torch.int32 if device == "cuda" and want.dtype != torch.float32 else torch.int64
    arguments = (
        hidden,
        table if case.contiguous else table.T,
        torch.from_numpy(inputs.target).to(device, ints),
        torch.from_numpy(negatives).to(device, ints) if isinstance(negatives, np.ndarray) else negatives,
    )
    keywords = options(case) | {
        "linear_bias": bias,
        "sample_weight": weight,
        "logit_scale": scale,
        "seed": SEED,
        "impl": impl,
    }
    if inputs.history is not None:
        keywords["history"] = History(*(torch.from_numpy(array).to(device) for array in inputs.history))
    log_q = None if inputs.log_q is None else torch.from_numpy(inputs.log_q).to(device)
    if case.positive_weight is None:
        loss, lse = sampled_linear_cross_entropy(*arguments, log_q=log_q, **softmax_options(case), **keywords)
    else:
        loss = sampled_linear_binary_cross_entropy(*arguments, gbce_t=case.gbce_t, **keywords)
        lse = torch.zeros(case.num_rows, device=device)
    u, v = (torch.from_numpy(g).to(device) for g in (inputs.grad_loss, inputs.grad_lse))
    ((u * loss).sum() if case.reduction == "none" else loss).add((v * lse).sum()).backward()
    table_grad = table.grad if case.contiguous else table.grad.T  # type: ignore[union-attr]
    return Result(
        loss=to_numpy(loss),
        lse=to_numpy(lse),
        dhidden=to_numpy(hidden.grad),  # type: ignore[arg-type]
        dtable=to_numpy(table_grad),  # type: ignore[arg-type]
        dbias=None if bias is None else to_numpy(bias.grad),  # type: ignore[arg-type]
        dscale=float(scale.grad),  # type: ignore[arg-type]
        dweight=None if weight is None else to_numpy(weight.grad),  # type: ignore[arg-type]
    )
