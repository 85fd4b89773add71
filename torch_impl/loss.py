"""Cross-entropy with negative sampling (CCE-, arXiv 2509.09682) for PyTorch: the functional API."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ..kernels.arguments import (
    Options,
    Spec,
    as_number,
    check_arrays,
    draws_at_random,
    is_sampler,
)
from ..kernels.errors import ArgumentTypeError, ArgumentValueError
from ..kernels.problem import interprets
from ..kernels.samplers import AllItems, Sampler, UniformNegatives, as_index
from . import ops

INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _spec(argument: str, value: object) -> Spec:
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(argument, "a torch.Tensor", type(value).__name__)
    return Spec(tuple(value.shape), str(value.dtype).removeprefix("torch."), str(value.device))


def _optional(argument: str, value: object) -> Spec | None:
    return None if value is None else _spec(argument, value)


def seed_words(seed: object, device: torch.device) -> Tensor:
    """A seed as two int32 words (low, high) on ``device``, without waiting for it.

    ``seed`` is an int, a tensor of one integer, or one of two integers taken as 32-bit words (high, low); all modulo 2^64.
    None draws one from the default generator of the device.
    """
    if seed is None:
        value = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device)
    elif isinstance(seed, Tensor):
        if seed.dtype not in INTEGER_DTYPES and seed.dtype not in (torch.uint32, torch.uint64):
            raise ArgumentTypeError("seed", "an int or an integer tensor", str(seed.dtype))
        if seed.numel() not in (1, 2):
            raise ArgumentValueError("seed", "a tensor of 1 or 2 elements", tuple(seed.shape))
        if seed.device != device:
            raise ArgumentValueError("seed", f"device {device}, that of input", seed.device)
        value = seed.detach().reshape(-1).to(torch.int64)
        if value.numel() == 2:
            value = (value[:1] << 32) | (value[1:] & 0xFFFFFFFF)
    else:
        wrapped = as_index("seed", seed) & (2**64 - 1)
        value = torch.full((1,), wrapped - 2**64 if wrapped >= 2**63 else wrapped, dtype=torch.int64, device=device)
    return value.view(torch.int32)


def _scale(logit_scale: object, device: torch.device) -> Tensor:
    if not isinstance(logit_scale, Tensor):
        return torch.full((1,), as_number("logit_scale", logit_scale), dtype=torch.float32, device=device)
    if logit_scale.numel() != 1:
        raise ArgumentValueError("logit_scale", "a number or a tensor of 1 element", tuple(logit_scale.shape))
    if not logit_scale.is_floating_point():
        raise ArgumentTypeError("logit_scale", "a floating-point tensor", str(logit_scale.dtype))
    if logit_scale.device != device:
        raise ArgumentValueError("logit_scale", f"device {device}, that of input", logit_scale.device)
    return logit_scale.reshape(1).float()


def _resolve_impl(impl: str, device: torch.device) -> str:
    if impl == "auto":
        return "triton" if device.type == "cuda" else "reference"
    if impl == "triton" and device.type != "cuda" and not interprets():
        raise ArgumentValueError("impl", f"'auto' or 'reference' for tensors on {device} (Triton needs CUDA)", "'triton'")
    return impl


def _as_kernel_ints(value: Tensor) -> Tensor:
    return value if value.dtype in (torch.int64, torch.int32) else value.long()


def _reduce(row_values: Tensor, num_counted: Tensor, options: Options) -> Tensor:
    """Reduction of unweighted rows; ``num_counted`` of them are not ignored, or 1 if none is."""
    if options.reduction == "none":
        return row_values
    total = row_values.sum()
    return total if options.reduction == "sum" else total / num_counted


def _weigh(row_values: Tensor, target: Tensor, sample_weight: Tensor, options: Options) -> Tensor:
    """Weights and reduction over the rows that are not ignored; ignored rows hold zeros."""
    counted = target != options.ignore_index
    weights = torch.where(counted, sample_weight.to(torch.float32), 0.0)
    # an ignored row's zero must stay one whatever its weight
    row_values = torch.where(counted, row_values * weights, 0.0)
    if options.reduction == "none":
        return row_values
    total = row_values.sum()
    if options.reduction == "sum":
        return total
    mass = weights.sum()
    return torch.where(mass == 0, total * 0.0, total / torch.where(mass == 0, 1.0, mass))


# The overloads tell type checkers what ``return_lse`` returns.
@overload
def sampled_linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, negatives: Sampler | Tensor, *,
    linear_bias: Tensor | None = None, sample_weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: float | Tensor = 1.0, softcap: float | None = None, remove_accidental_hits: bool = True,
    seed: int | Tensor | None = None, return_lse: Literal[False] = False, impl: str = "auto",
) -> Tensor: ...  # fmt: skip
@overload
def sampled_linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, negatives: Sampler | Tensor, *,
    linear_bias: Tensor | None = None, sample_weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: float | Tensor = 1.0, softcap: float | None = None, remove_accidental_hits: bool = True,
    seed: int | Tensor | None = None, return_lse: bool, impl: str = "auto",
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def sampled_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    negatives: Sampler | Tensor,
    *,
    linear_bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: float | Tensor = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    seed: int | Tensor | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Cross-entropy of each row's target against sampled negatives, with the logits never in memory.

    With x_j = logit_scale e . c_j + bias_j, s_j = softcap tanh(x_j / softcap) (or x_j), V items and the m of a row's draws that are kept:
    ``loss = logsumexp(s_t, s_j + log((V - 1) / m), ..) - s_t``. Draws equal to the target are dropped unless
    ``remove_accidental_hits`` is False; a row that keeps none has loss 0. Source: arXiv 2509.09682, its eager CE-.

    Args:
        input: (..., D) hidden states e, float32, bfloat16 or float16. Under autocast they are cast to its dtype.
        linear_weight: (V, D) item table c; its gradient has its dtype and is dense, fp32 inside.
        target: (...) integer items in [0, V), or ``ignore_index``.
        negatives: a sampler, or explicit integer ids (K,) shared by all rows or (..., K) of each row, ignored rows included;
            -1 is an empty slot and repeated ids count as often as they stand.
        linear_bias: (V,) added to the logits.
        sample_weight: (...) weight w of each row, differentiable.
        ignore_index: target of rows to leave out; their loss, lse and gradients are 0.
        reduction: "mean" = sum(w loss) / sum(w) over rows not ignored (0 if that is empty), "sum" = sum(w loss), "none" = w loss.
        logit_scale: a number, or a tensor of one element, which gets its gradient.
        softcap: a positive bound on the logits, or None.
        seed: what the draw follows from: an int, a tensor of one integer, or of two 32-bit words (high, low). None takes one from
            the device's default generator, as dropout does. AllItems and explicit ids draw nothing.
        return_lse: also return the logsumexp (...) of each row, fp32 and differentiable, unweighted.
        impl: "triton", "reference" (plain torch, in chunks), or "auto": triton on CUDA.

    Returns:
        The fp32 loss, a scalar or (...) for "none"; with ``return_lse`` a pair of it and the lse.

    Raises:
        ArgumentTypeError, ArgumentValueError: naming the argument. On CPU also for a target or id that is no item; on
        CUDA, where reading them would wait for the device, such a row's loss is NaN.
    """
    options = Options(ignore_index, reduction, softcap, remove_accidental_hits, return_lse, impl)
    ids = None if is_sampler(negatives) else negatives
    if ids is not None and not isinstance(ids, Tensor):
        raise ArgumentTypeError("negatives", "UniformNegatives, AllItems or an integer tensor", type(ids).__name__)
    check_arrays(
        _spec("input", input), _spec("linear_weight", linear_weight), _spec("target", target),
        _optional("negatives", ids), _optional("linear_bias", linear_bias), _optional("sample_weight", sample_weight),
    )  # fmt: skip
    device = input.device
    impl = _resolve_impl(options.impl, device)
    scale = _scale(logit_scale, device)
    num_items, dim = linear_weight.shape
    if seed is not None or draws_at_random(negatives, num_items):
        words = seed_words(seed, device)
    else:
        words = torch.zeros(2, dtype=torch.int32, device=device)
    if torch.is_autocast_enabled(device.type):
        input = input.to(torch.get_autocast_dtype(device.type))
    if target.numel() == 0:
        zeros = (input.sum() + linear_weight.sum() + scale.sum()) * 0.0
        row_loss = row_lse = zeros.float() + torch.zeros(target.shape, device=device)
        num_counted = torch.ones((), device=device)
    else:
        num_negatives, group_size, shuffle_rows = 0, 1, False
        if isinstance(negatives, UniformNegatives):
            num_negatives, group_size = negatives.num_negatives, negatives.group_size
            shuffle_rows = negatives.shuffle_rows
        if ids is not None:
            ids = _as_kernel_ints(ids if ids.ndim == 1 else ids.reshape(-1, ids.shape[-1])).contiguous()
        rows = ops.rows(
            input.reshape(-1, dim).contiguous(), linear_weight.contiguous(), _as_kernel_ints(target).reshape(-1).contiguous(), ids,
            None if linear_bias is None else linear_bias.contiguous(), words, scale,
            num_negatives, group_size, shuffle_rows, options.softcap, remove_accidental_hits, ignore_index, scale.requires_grad, impl,
        )  # fmt: skip
        row_loss, row_lse, num_counted = rows[0].view(target.shape), rows[1].view(target.shape), rows[2]
    weighted = sample_weight is not None
    loss = _weigh(row_loss, target, sample_weight, options) if weighted else _reduce(row_loss, num_counted, options)
    return (loss, row_lse) if return_lse else loss


@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    linear_bias: Tensor | None = None, sample_weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: float | Tensor = 1.0, softcap: float | None = None, return_lse: Literal[False] = False, impl: str = "auto",
) -> Tensor: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    linear_bias: Tensor | None = None, sample_weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: float | Tensor = 1.0, softcap: float | None = None, return_lse: bool, impl: str = "auto",
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: float | Tensor = 1.0,
    softcap: float | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Full softmax cross-entropy over every item: ``sampled_linear_cross_entropy`` with ``AllItems()``.

    ``loss = logsumexp over all items of s_j - s_t``; arguments, result and errors as there.
    """
    return sampled_linear_cross_entropy(
        input, linear_weight, target, AllItems(), linear_bias=linear_bias, sample_weight=sample_weight, ignore_index=ignore_index,
        reduction=reduction, logit_scale=logit_scale, softcap=softcap, return_lse=return_lse, impl=impl,
    )  # fmt: skip
