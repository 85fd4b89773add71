"""Which calls are plain ones, and the plan of each one's signature: arguments that passed the checks once pass them
again."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from ...kernels.errors import ArgumentError
from ...kernels.negatives.arguments import Options, Spec, check_arrays, correction_of
from ...kernels.negatives.base import Negatives
from ...kernels.plan.problem import interprets
from . import operands, ops
from .row_losses import as_autocast, has_kernels, resolve_impl
from .rows import is_transformed, on_device

if TYPE_CHECKING:
    from .plain import Plan

TENSORS = (Tensor, torch.nn.Parameter)
NUMBERS = (float, int)
Kind: TypeAlias = "tuple[torch.Size, torch.dtype, torch.device]"


def _kind(tensor: Any) -> Kind | None:
    """Shape, dtype and device of a tensor; None of what is no plain one, or would have to be copied."""
    if type(tensor) not in TENSORS or tensor.layout is not torch.strided or tensor.is_nested:
        return None
    return (tensor.shape, tensor.dtype, tensor.device) if tensor.is_contiguous() else None


def _spec(kind: Kind | None) -> Spec | None:
    if kind is None:
        return None
    shape, dtype, device = kind
    return Spec(tuple(shape), str(dtype).removeprefix("torch."), str(device))


@functools.lru_cache(maxsize=256, typed=True)  # typed: True is no number, though it equals 1
def _plan(
    input: Kind, weight: Kind, target: Kind, bias: Kind | None, sample_weight: Kind | None, scale_grad: bool,
    sampler: str, ignore_index: int, reduction: str, softcap: float | None, remove_accidental_hits: bool,
    return_lse: bool, impl: str, logq_correction: bool, positive_weight: float | None,
) -> Plan | None:  # fmt: skip
    """The plan of checked calls; None where these raise, or take another way."""
    device, dtype = input[2], target[1]
    try:
        options = Options(ignore_index, reduction, softcap, remove_accidental_hits, return_lse, impl, logq_correction)
        specs = [_spec(kind) for kind in (input, weight, target, None, bias, sample_weight)]
        check_arrays(*specs)  # type: ignore[arg-type]
        if resolve_impl(impl, device) != "triton":
            return None
        num_items = weight[0][0]
        draw = ops.draw_of(sampler, num_items)
    except ArgumentError:
        return None
    fits = dtype == torch.int64 or (dtype == torch.int32 and -(2**31) <= ignore_index < 2**31)
    if not fits or not target[0].numel() or draw.targets or (draw.lists is not None and draw.lists.chooses):
        return None
    from .plain import Plan  # the kernels, with Triton

    has_weights = draw.lists is not None and draw.lists.has_weights
    static = operands.Options(
        sampler=sampler,
        catalog=0,
        ids_group=1,
        impl="triton",
        softcap=options.softcap,
        remove_accidental_hits=remove_accidental_hits,
        ignore_index=ignore_index,
        scale_grad=scale_grad,
        positive_weight=positive_weight,
        correction=correction_of(draw, True if has_weights else None, options, positive_weight),
        is_shard=False,
    )
    num_rows = target[0].numel()
    return Plan(
        shapes=ops.shapes_of(num_rows, input[0][-1], num_items, input[1], weight[1], bias and bias[1], None, device),
        options=options,
        static=static,
        draw=draw,
        device=device,
        input_shape=tuple(input[0]),
        target=dtype,
        fused=sample_weight is None and reduction != "none" and not return_lse,
    )


def plain_loss(
    input: Any, weight: Any, target: Any, sampler: Any, bias: Any, sample_weight: Any, logit_scale: Any, seed: Any,
    *options: Any,
) -> Any:  # fmt: skip
    """The result of a public loss's call, or None where it is no plain one, or raises. ``options``: ignore_index,
    reduction, softcap, remove_accidental_hits, return_lse, impl, logq_correction, positive_weight."""
    if torch.compiler.is_compiling() or is_transformed():
        return None
    if not isinstance(sampler, Negatives) or sampler.in_batch:
        return None
    input = as_autocast(input)
    kinds = [_kind(tensor) for tensor in (input, weight, target)]
    if None in kinds or not (has_kernels(input.device) or (input.is_cpu and interprets())):
        return None
    for tensor in (bias, sample_weight):
        kind = None if tensor is None else _kind(tensor)
        if kind is None and tensor is not None:
            return None
        kinds.append(kind)
    if type(logit_scale) in NUMBERS:
        scale_grad = False
    elif type(logit_scale) in TENSORS:
        scale_grad = logit_scale.requires_grad
    else:
        return None
    try:
        plan = _plan(*kinds, scale_grad, sampler.text, *options)  # type: ignore[arg-type]
    except TypeError:  # an option that has no hash
        return None
    if plan is None:
        return None
    return on_device(plan.device, plan.call, input, weight, target, sampler, bias, sample_weight, logit_scale, seed)
