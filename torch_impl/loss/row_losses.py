"""What every loss on sampled items shares: a call's arguments checked, its flat rows computed, weighed and reduced."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.draws.draw import given_ids
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import (
    Options,
    Spec,
    check_arrays,
    check_working_set,
    correction_of,
)
from ...kernels.negatives.base import Negatives
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_number
from ...kernels.plan.problem import interprets
from . import operands
from .list_operands import list_operands, of_shard
from .operands import Operands
from .rows import rows
from .seeds import seed_words
from .working_set import WorkingSet

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def spec_of(argument: str, value: object) -> Spec:
    """What a tensor argument looks like; raises for what is none that kernels could read."""
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(argument, "a torch.Tensor", type(value).__name__)
    if type(value) not in (Tensor, torch.nn.Parameter) and any(t.__name__ == "DTensor" for t in type(value).__mro__):
        raise ArgumentTypeError(argument, "a local tensor (to_local() or full_tensor() give one)", "a DTensor")
    if value.is_nested or value.layout != torch.strided:
        raise ArgumentTypeError(argument, "a dense tensor", f"one of layout {value.layout}")
    return Spec(tuple(value.shape), str(value.dtype).removeprefix("torch."), str(value.device))


def optional_spec(argument: str, value: object) -> Spec | None:
    return None if value is None else spec_of(argument, value)


def history_specs(history: object) -> tuple[Spec, ...] | None:
    """What each of a history's tensors looks like; raises for what is no history."""
    if history is None:
        return None
    if not isinstance(history, History):
        raise ArgumentTypeError("history", "a History", type(history).__name__)
    return tuple(spec_of("history", array) for array in history)


def scale_of(logit_scale: object, device: torch.device) -> Tensor:
    """(1,) fp32."""
    if not isinstance(logit_scale, Tensor):
        number = as_number("logit_scale", logit_scale)
        if torch.compiler.is_compiling():  # a factor may be a symbol of one graph for every number, a filling may not
            return torch.ones(1, dtype=torch.float32, device=device) * number
        return torch.full((1,), number, dtype=torch.float32, device=device)
    spec_of("logit_scale", logit_scale)
    if logit_scale.numel() != 1:
        raise ArgumentValueError("logit_scale", "a number or a tensor of 1 element", tuple(logit_scale.shape))
    if not logit_scale.is_floating_point():
        raise ArgumentTypeError("logit_scale", "a floating-point tensor", str(logit_scale.dtype))
    if logit_scale.device != device:
        raise ArgumentValueError("logit_scale", f"device {device}, that of input", logit_scale.device)
    return logit_scale.reshape(1).float()


def has_kernels(device: torch.device) -> bool:
    """Whether the device is a GPU of NVIDIA's, which the kernels are for: PyTorch calls AMD's ``cuda`` as well."""
    return device.type == "cuda" and torch.version.hip is None


def resolve_impl(impl: str, device: torch.device) -> str:
    """ "triton" or "reference"; raises for kernels on a CPU outside the interpreter, and on a GPU of AMD's."""
    if impl == "auto":
        return "triton" if has_kernels(device) else "reference"
    if impl == "triton" and not has_kernels(device) and not (device.type == "cpu" and interprets()):
        needed = "an NVIDIA GPU" if torch.version.hip else "CUDA"
        raise ArgumentValueError(
            "impl", f"'auto' or 'reference' for tensors on {device} (Triton needs {needed})", "'triton'"
        )
    return impl


def _as_kernel_ints(value: Tensor) -> Tensor:
    return value if value.dtype in (torch.int64, torch.int32) else value.long()


def comparable(target: Tensor, ignore_index: int) -> Tensor:
    """``target`` in a dtype that holds ``ignore_index``, which torch rounds to the target's otherwise."""
    return _as_kernel_ints(target) if -(2**31) <= ignore_index < 2**31 else target.long()


def reduce(
    row_values: Tensor, num_counted: Tensor, target: Tensor, sample_weight: Tensor | None, options: Options
) -> Tensor:
    """Reduction of rows, weighted where weights are given; ``num_counted`` of them are not ignored, or 1 if none is."""
    if sample_weight is not None:
        return _weigh(row_values, target, sample_weight, options)
    if options.reduction == "none":
        return row_values
    total = row_values.sum()
    return total if options.reduction == "sum" else total / num_counted


def _weigh(row_values: Tensor, target: Tensor, sample_weight: Tensor, options: Options) -> Tensor:
    """Weights and reduction over the rows that are not ignored; ignored rows hold zeros."""
    counted = comparable(target, options.ignore_index) != options.ignore_index
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


def as_autocast(input: Tensor) -> Tensor:
    """``input`` in autocast's dtype, where that is on; it makes no wrong dtype right."""
    if not isinstance(input, Tensor) or input.dtype not in FLOAT_DTYPES or input.is_meta:
        return input
    device = input.device.type
    return input.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else input


def num_items_of(linear_weight: object) -> int:
    """V, or 1 where the table is malformed, which ``row_losses`` refuses."""
    shape = spec_of("linear_weight", linear_weight).shape
    return shape[0] if len(shape) == 2 else 1


def checked_operands(
    input: Tensor, linear_weight: Tensor, target: Tensor, ids: Tensor | None, options: Options, *,
    linear_bias: Tensor | None, sample_weight: Tensor | None, logit_scale: float | Tensor, seed: int | Tensor | None,
    draws: bool,
    log_q: Tensor | None = None, history: History | None = None,
) -> Operands:  # fmt: skip
    """A public loss's arguments, checked, as flat rows without their candidates; without a ``seed`` one is drawn where
    the call ``draws``."""
    input = as_autocast(input)
    check_arrays(
        spec_of("input", input), spec_of("linear_weight", linear_weight), spec_of("target", target),
        optional_spec("negatives", ids), optional_spec("linear_bias", linear_bias),
        optional_spec("sample_weight", sample_weight), optional_spec("log_q", log_q), history_specs(history),
    )  # fmt: skip
    device = input.device
    return Operands(
        input=input.reshape(-1, input.shape[-1]).contiguous(),
        weight=linear_weight.contiguous(),
        target=comparable(target, options.ignore_index).reshape(-1).contiguous(),
        seed=seed_words(seed, device, input)
        if seed is not None or draws
        else torch.zeros(2, dtype=torch.int32, device=device),
        scale=scale_of(logit_scale, device),
        bias=None if linear_bias is None else linear_bias.contiguous(),
    )


def no_rows(x: Operands) -> Tensor:
    """The losses (0,) of an empty batch, from which its zero gradients follow."""
    operands = (x.input, x.weight, x.scale, *(() if x.bias is None else (x.bias,)))
    return torch.stack([each.sum(dtype=torch.float32) for each in operands]).sum().view(1)[:0]


def row_losses(
    input: Tensor, linear_weight: Tensor, target: Tensor, negatives: Sampler | WorkingSet | Tensor,
    options: Options, *,
    linear_bias: Tensor | None, sample_weight: Tensor | None, logit_scale: float | Tensor, seed: int | Tensor | None,
    log_q: Tensor | None = None, history: History | None = None, positive_weight: float | None = None,
    is_shard: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss and lse (...) of each row, fp32, and the number of rows that count, at least 1; by a public loss's
    arguments.

    ``positive_weight``: of the positive's term in binary cross-entropy, which has no lse; None for the softmax.
    ``is_shard``: the table and ``log_q`` are a shard's of the catalog, and the results as ``Choices`` says of one.
    """
    given = negatives if isinstance(negatives, WorkingSet) else None
    sampler = negatives if isinstance(negatives, Negatives) else None
    ids = None if sampler is not None or given is not None else negatives
    if ids is not None and not isinstance(ids, Tensor):
        raise ArgumentTypeError("negatives", "a sampler, a working set or an integer tensor", type(ids).__name__)
    num_items = num_items_of(linear_weight)
    if given is not None:
        check_working_set(given, num_items, target.shape, seed=seed, log_q=log_q, history=history)
        sampler, num_items = given.sampler, given.num_items
    draw = sampler.draw(num_items) if sampler is not None else None
    x = checked_operands(
        input, linear_weight, target, ids, options,
        linear_bias=linear_bias, sample_weight=sample_weight, logit_scale=logit_scale,
        seed=seed, draws=given is None and draw is not None and draw.random, log_q=log_q, history=history,
    )  # fmt: skip
    impl = resolve_impl(options.impl, input.device)
    if target.numel() == 0:
        row_loss = row_lse = no_rows(x).view(target.shape)
        return row_loss, row_lse, torch.ones((), dtype=torch.float32, device=input.device)
    if draw is not None and draw.targets:  # as good as ids that are given
        is_item = (x.target != options.ignore_index) & (x.target >= 0) & (x.target < len(linear_weight))
        sampler, ids = None, torch.where(is_item, x.target, -1)
    elif ids is not None:
        ids = _as_kernel_ints(ids if ids.ndim == 1 else ids.reshape(-1, ids.shape[-1])).contiguous()
    if ids is not None:
        draw = given_ids(tuple(ids.shape))
    assert draw is not None
    if given is None:
        slot_ends, log_weight = list_operands(sampler, draw, num_items, x.seed, log_q)
        if is_shard and log_q is not None:
            log_weight = of_shard(log_weight)
    else:
        slot_ends, log_weight, ids = None, given.log_weight, ids if given.drawn is None else given.drawn
        x = x._replace(positions=given.positions, seed=given.seed)
    correction = correction_of(draw, log_weight, options, positive_weight)
    x = x._replace(ids=ids, log_weight=log_weight if correction == "weighted" else None, slot_ends=slot_ends)
    if given is not None and given.history is not None:
        weight = given.history_weight if correction == "weighted" else None
        x, history = x._replace(row_ids=given.ids, history_weight=weight), given.history
    if history is not None:
        users, offsets, items = (_as_kernel_ints(array).contiguous() for array in history)
        x = x._replace(users=users.reshape(-1), history_offsets=offsets, history_items=items)
    static = operands.Options(
        sampler="" if sampler is None else sampler.text,
        catalog=0 if given is None else given.num_items,
        ids_group=1,
        impl=impl,
        softcap=options.softcap,
        remove_accidental_hits=options.remove_accidental_hits,
        ignore_index=options.ignore_index,
        scale_grad=x.scale.requires_grad,
        positive_weight=positive_weight,
        correction=correction,
        is_shard=is_shard,
    )
    row_loss, row_lse, num_counted = rows(x, static)
    return row_loss.view(target.shape), row_lse.view(target.shape), num_counted
