"""The loss's rows, and what they are under torch's transforms.

vmap over rows makes more rows of one call, whose gradient of the shared table is then computed once; where grad is
inside vmap, and in Jacobians, each mapped gradient is a backward of its own. Forward mode raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ...kernels.errors import ArgumentValueError
from . import ops
from .operands import Operands, Options, Saved, split

T = TypeVar("T")
UNMAPPED = {
    "weight": "linear_weight",
    "bias": "linear_bias",
    "scale": "logit_scale",
    "seed": "seed",
    "log_weight": "log_q",
    "slot_ends": "negatives",
    "history_offsets": "history",
    "history_items": "history",
}


def _refuse_forward_mode(*_: object) -> NoReturn:
    raise NotImplementedError(
        "cce_minus: the loss has no forward-mode derivatives (jvp, jacfwd, hessian); use reverse mode (grad, jacrev)"
    )


def refuse_second_derivatives(*_: object) -> NoReturn:
    raise NotImplementedError(
        "cce_minus: the loss has no second derivatives; differentiate its gradient by another method"
    )


def is_transformed() -> bool:
    """Whether calls are traced or transformed, so that they must go through operators."""
    return (
        _get_current_dispatch_mode() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def on_device(device: torch.device, function: Callable[..., T], *args: object) -> T:
    """``function(*args)`` with the device as the current one, which it mostly is."""
    if device.index is None or device.index == torch.cuda.current_device():
        return function(*args)
    with torch.cuda.device(device):
        return function(*args)


def _first(tensor: Tensor | None, dim: int | None) -> Tensor | None:
    return tensor if tensor is None or dim is None else tensor.movedim(dim, 0)


def _fold(x: Operands, mapped: Operands, size: int, options: Options) -> Operands:
    """``x``, whose mapped tensors have the mapped axis first, as one call on ``size`` times as many rows."""
    for name, argument in UNMAPPED.items():
        if getattr(mapped, name) is not None:
            expected = "a tensor shared by the mapped rows (vmap may map input, target, negatives and sample_weight)"
            raise ArgumentValueError(argument, expected, "a mapped tensor")
    if options.catalog:
        raise ArgumentValueError("negatives", "a sampler or ids under vmap", "a working set")
    num_rows = x.target.shape[-1]

    def fold(tensor: Tensor, dim: int | None, row_dims: int) -> Tensor:
        every = tensor if dim is not None else tensor[None]
        row_shape = every.shape[every.ndim - row_dims :]
        if every.ndim == row_dims + 1:  # ids shared by the rows of each mapped call
            every = every[:, None].expand(-1, num_rows, *row_shape)
        return every.expand(size, *every.shape[1:]).reshape(-1, *row_shape)

    ids = x.ids
    if ids is not None and (mapped.ids is not None or ids.ndim == 2):
        ids = fold(ids, mapped.ids, 1)  # type: ignore[arg-type]
    return x._replace(
        input=fold(x.input, mapped.input, 1),  # type: ignore[arg-type]
        target=_rows(x.target, mapped.target, size),
        ids=ids,
        users=None if x.users is None else _rows(x.users, mapped.users, size),
    )


def _rows(tensor: Tensor, dim: object, size: int) -> Tensor:
    """Values of each row (N, ...), or mapped (size, N, ...), as (size * N, ...)."""
    every = tensor if dim is not None else tensor.expand(size, *tensor.shape)
    return every.reshape(size * every.shape[1], *every.shape[2:])


class _Backward(Function):
    """The derivative, which there is none, and mapping of ``ops.backward``."""

    @staticmethod
    def forward(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return ops.backward(*args)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    backward = jvp = staticmethod(refuse_second_derivatives)  # type: ignore[assignment]

    @staticmethod
    def vmap(info, in_dims, *args):
        size = info.batch_size
        args = [_first(arg, dim) if isinstance(arg, Tensor) else arg for arg, dim in zip(args, in_dims, strict=True)]
        x, between, options = split(args)
        x_dims, saved_dims, _ = split(in_dims)
        saved, wanted = ops.saved_and_wanted(between)
        dims, _ = ops.saved_and_wanted(saved_dims)

        def upstream(grad: Tensor | None, dim: object, call: int) -> Tensor | None:
            return grad if grad is None or dim is None else grad[call]

        if dims.loss is None:  # only upstream gradients are mapped, as in a Jacobian
            calls = [
                saved._replace(
                    grad_loss=upstream(saved.grad_loss, dims.grad_loss, call),
                    grad_lse=upstream(saved.grad_lse, dims.grad_lse, call),
                )
                for call in range(size)
            ]
            each = [_Backward.apply(*x, *call, *wanted, *options) for call in calls]
            return tuple(torch.stack(same) for same in zip(*each, strict=True)), (0, 0, 0, 0)

        num_rows = saved.loss.shape[1]
        x = _fold(x, x_dims, size, options)
        folded = {
            name: value if value is None or name == "tables" else _rows(value, getattr(dims, name), size)
            for name, value in saved._asdict().items()
        }
        saved = Saved(**folded)  # type: ignore[arg-type]
        of_rows = wanted._replace(weight=False, bias=False)
        input_grad, item_grad, bias_grad, scale_grad = _Backward.apply(*x, *saved, *of_rows, *options)
        if wanted.items:
            call_of_row = torch.arange(size * num_rows, device=x.input.device) // num_rows
            of_items = wanted._replace(input=False, scale=False)
            tables = []
            for call in range(size):  # its rows' draws depend on all the others'
                own = {
                    name: torch.where(call_of_row == call, grad, 0.0)
                    for name in ("grad_loss", "grad_lse")
                    if (grad := folded[name]) is not None
                }
                tables.append(_Backward.apply(*x, *saved._replace(**own), *of_items, *options)[1:3])
            item_grad, bias_grad = (torch.stack(same) for same in zip(*tables, strict=True))
        else:
            item_grad, bias_grad = item_grad.expand(size, 0), bias_grad.expand(size, 0)
        input_grad, scale_grad = (each.unflatten(0, (size, len(each) // size)) for each in (input_grad, scale_grad))
        return (input_grad, item_grad, bias_grad, scale_grad), (0, 0, 0, 0)


class _Forward(Function):
    """The derivative and mapping of ``ops.forward``."""

    @staticmethod
    def forward(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return ops.forward(*args)

    setup_context = staticmethod(ops._setup_forward)
    jvp = staticmethod(_refuse_forward_mode)  # type: ignore[assignment]

    @staticmethod
    def backward(ctx, *grads):
        return ops._gradients(ctx, _Backward.apply, *grads[:2])

    @staticmethod
    def vmap(info, in_dims, *args):
        size = info.batch_size
        args = [_first(arg, dim) if isinstance(arg, Tensor) else arg for arg, dim in zip(args, in_dims, strict=True)]
        x, _, options = split(args)
        num_rows = x.target.shape[-1]
        x = _fold(x, split(in_dims)[0], size, options)
        loss, lse, _, *kept, average, tables = _Forward.apply(*x, *options)  # type: ignore[misc]
        counted = (x.target != options.ignore_index).view(size, num_rows).sum(1, dtype=torch.float32).clamp(min=1)
        each = [rows.view(size, len(rows) // size) for rows in (loss, lse, *kept)]
        results = *each[:2], counted, *each[2:], average.unflatten(0, (size, num_rows)), tables
        return results, (*[0] * (len(results) - 1), None)


def _refuse_traced_transforms(*_: object) -> NoReturn:
    raise NotImplementedError(
        "cce_minus: torch.compile cannot trace torch.func's transforms of the loss; leave them to eager code"
    )


def _differentiable(operator: Callable, function: type[Function]) -> None:
    """Makes ``function`` the operator's derivative, where only traced code meets it under transforms."""

    def kernel(*args):
        if torch._C._are_functorch_transforms_active():
            _refuse_traced_transforms()
        return function.apply(*args)

    torch.library.impl(operator.name(), "Autograd")(kernel)  # type: ignore[attr-defined]
    torch.library.register_vmap(operator.name(), _refuse_traced_transforms)  # type: ignore[attr-defined]


_differentiable(ops.forward, _Forward)
_differentiable(ops.backward, _Backward)


def rows(x: Operands, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """loss, lse (N,) and the number of counted rows (at least 1); differentiable once, in reverse, in loss and lse."""
    if torch.compiler.is_compiling():
        return ops.forward(*x, *options)[: ops.RESULTS]
    if torch._C._are_functorch_transforms_active():
        return _Forward.apply(*x, *options)[: ops.RESULTS]  # type: ignore[index]
    tensors = [arg for arg in x if arg is not None]
    plain = all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors) and not x.input.is_meta
    if is_transformed() or not plain:
        return ops.forward(*x, *options)[: ops.RESULTS]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return ops._Rows.apply(*x, *options)[: ops.RESULTS]  # type: ignore[index]
    return ops._forward(*x, *options)[: ops.RESULTS]
