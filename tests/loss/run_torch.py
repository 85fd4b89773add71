"""Run a case through the public PyTorch API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from cce_minus.kernels import History
from cce_minus.torch_impl import (
    linear_cross_entropy,
    sampled_linear_binary_cross_entropy,
    sampled_linear_cross_entropy,
)
from cce_minus.torch_impl.loss import ops, plain
from cce_minus.torch_impl.tables.working_set import working_set
from torch import Tensor

from tests.loss.expected import Expected, How, Result, options, softmax_options


def to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


@contextlib.contextmanager
def poisoned_outputs() -> Iterator[None]:
    """Every buffer that the operator hands to a kernel holds NaN, or a huge integer, before it is written."""
    of_layout, of_shape = ops._empty, plain._empty

    def fill(tensor):
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 2**31 - 1)

    ops._empty = lambda *args: {name: fill(tensor) for name, tensor in of_layout(*args).items()}
    plain._empty = lambda *args, **kwargs: fill(of_shape(*args, **kwargs))
    try:
        yield
    finally:
        ops._empty, plain._empty = of_layout, of_shape


def run_torch(want: Expected, impl: str, device: str = "cpu") -> Result:
    """Loss, lse and gradients of a case, on poisoned outputs."""
    with poisoned_outputs():
        return _run(want, impl, device)


def _seed(how: How, device: str) -> int | Tensor:
    value = how.seed - 2**64 if how.seed >= 2**63 else how.seed
    if how.seed_kind == "one":
        return torch.tensor([value], device=device)
    if how.seed_kind == "words":
        return torch.tensor([how.seed >> 32, how.seed & 0xFFFFFFFF], device=device)
    return how.seed


def _run(want: Expected, impl: str, device: str) -> Result:
    case, inputs, how = want.case, want.given, want.how
    shape = (case.num_rows,) if how.leading is None else (*how.leading, -1)
    # JAX's integers in half precision on a GPU, so that its tests find these kernels compiled
    ints = torch.int32 if how.short_ints or (device == "cuda" and want.dtype != torch.float32) else torch.int64

    def leaf(name: str, array: np.ndarray, dtype: torch.dtype = want.dtype) -> Tensor:
        tensor = torch.from_numpy(array).to(device, dtype, memory_format=torch.preserve_format)
        return tensor.requires_grad_(name not in how.frozen)

    def integers(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device, ints)

    table = inputs.table if case.contiguous else np.ascontiguousarray(inputs.table.T)
    leaves = {
        "hidden": leaf("hidden", inputs.hidden),
        "table": leaf("table", table, torch.float32 if how.wide_table else want.dtype),
    }
    if inputs.bias is not None:
        leaves["bias"] = leaf("bias", inputs.bias, torch.float32 if how.wide_bias else want.dtype)
    if inputs.sample_weight is not None:
        leaves["weight"] = leaf("weight", inputs.sample_weight, torch.float32)
    if how.scale == "array":
        leaves["scale"] = leaf("scale", np.array(case.logit_scale), torch.float32)

    def rows(tensor: Tensor) -> Tensor:
        return tensor if how.leading is None else tensor.reshape(*shape, *tensor.shape[1:])

    negatives = want.negatives
    if isinstance(negatives, np.ndarray):
        negatives = integers(negatives) if negatives.ndim == 1 else rows(integers(negatives))
    arguments = (
        rows(leaves["hidden"]), leaves["table"] if case.contiguous else leaves["table"].T,
        rows(integers(inputs.target)),
    )  # fmt: skip
    keywords = options(case) | {
        "linear_bias": leaves.get("bias"),
        "sample_weight": rows(leaves["weight"]) if "weight" in leaves else None,
        "logit_scale": leaves.get("scale", case.logit_scale),
        "impl": impl,
    }
    seed: dict[str, Any] = {"seed": _seed(how, device)}
    log_q = None if inputs.log_q is None else torch.from_numpy(inputs.log_q).to(device)
    history = None
    if inputs.history is not None:
        users, *items = map(integers, inputs.history)
        history = History(rows(users), *items)
    if how.working_set:
        assert not isinstance(negatives, Tensor)
        given = working_set(
            negatives, arguments[2], num_items=case.num_items, ignore_index=case.ignore_index, history=history,
            log_q=log_q, impl=impl, **seed,
        )  # fmt: skip
        history = log_q = None
        places = given.ids.long()
        arguments, negatives, seed = (arguments[0], arguments[1][places], given.target), given, {}
        if "bias" in leaves:
            keywords["linear_bias"] = leaves["bias"][places]
    keywords["history"] = history
    if how.full:
        del keywords["remove_accidental_hits"]
        loss, lse = linear_cross_entropy(*arguments, return_lse=True, **keywords)
    elif case.positive_weight is None:
        loss, lse = sampled_linear_cross_entropy(
            *arguments, negatives, log_q=log_q, **seed, **softmax_options(case), **keywords
        )
    else:
        loss = sampled_linear_binary_cross_entropy(*arguments, negatives, gbce_t=case.gbce_t, **seed, **keywords)
        lse = torch.zeros(case.num_rows, device=device)
    u, v = (torch.from_numpy(g).to(device) for g in (inputs.grad_loss, inputs.grad_lse))
    if case.reduction == "none":
        assert loss.shape == arguments[2].shape
        loss = loss.flatten()
    lse = lse.flatten()
    total = ((u * loss).sum() if case.reduction == "none" else loss) + (v * lse).sum()
    if total.requires_grad:
        total.backward()
    grads = {name: None if tensor.grad is None else to_numpy(tensor.grad) for name, tensor in leaves.items()}
    of_table = grads["table"]
    return Result(
        loss=to_numpy(loss),
        lse=to_numpy(lse),
        dhidden=grads["hidden"],
        dtable=of_table if case.contiguous or of_table is None else of_table.T,
        dbias=grads.get("bias"),
        dscale=None if grads.get("scale") is None else float(grads["scale"]),  # type: ignore[arg-type]
        dweight=grads.get("weight"),
    )
