"""The loss as two ``torch.library`` operators: forward and backward, with fake and autograd registrations.

Both run either the Triton kernels or the reference. Row losses and row partition sums come out; weights and reductions are plain
torch around them (``loss.py``), so their gradients need no code here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels.buffers import Buffer, backward_buffers, forward_buffers, table_buffer
from ..kernels.problem import INTERPRETER_MULTIPROCESSORS, NO_ID, Dtype, Problem, build_problem, cached_problem
from ..kernels.samplers import AllItems, UniformNegatives
from . import reference

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int32": torch.int32}


@functools.cache
def multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


_NAMES: dict[torch.dtype, Dtype] = {dtype: name for name, dtype in _DTYPES.items()}  # type: ignore[misc]


def _problem(
    input: Tensor, weight: Tensor, ids: Tensor | None, bias: Tensor | None,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool,
) -> Problem:  # fmt: skip
    sampler = None
    if ids is None:
        sampler = UniformNegatives(num_negatives, group_size, shuffle_rows) if num_negatives else AllItems()
    (num_rows, dim), num_items, ids_shape = input.shape, weight.shape[0], None if ids is None else tuple(ids.shape)
    symbolic = any(isinstance(size, torch.SymInt) for size in (num_rows, dim, num_items, *(ids_shape or ())))
    return (build_problem if symbolic else cached_problem)(
        num_rows, dim, num_items, ids_shape, _NAMES[input.dtype], _NAMES[weight.dtype], None if bias is None else _NAMES[bias.dtype],
        sampler, softcap, remove_hits, ignore_index, scale_grad,
        multiprocessors(input.device.index or 0) if input.is_cuda else INTERPRETER_MULTIPROCESSORS,
    )  # fmt: skip


def _empty(buffers: tuple[Buffer, ...], device: torch.device) -> dict[str, Tensor]:
    return {b.name: torch.empty(b.shape, dtype=_DTYPES[b.dtype], device=device) for b in buffers}


def _named(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _forward(
    input: Tensor, weight: Tensor, target: Tensor, ids: Tensor | None, bias: Tensor | None, seed: Tensor, scale: Tensor,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(loss, lse, peak, shift, average_dot, average, tables) of rows: input (N, D), weight (V, D), target (N,), ids (K,) or (N, K), bias (V,),
    seed (2,) int32 words (low, high), scale (1,) fp32; all contiguous. num_negatives 0 takes every item."""
    p = _problem(
        input, weight, ids, bias, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad
    )
    if not input.is_cuda:
        reference.check_ranges(target, ids, p)
    if impl == "reference":
        with torch.autocast(input.device.type, enabled=False):
            saved = reference.forward(input, weight, target, ids, bias, seed, scale, p)
        return *saved, torch.empty(0, dtype=torch.int32, device=input.device)  # type: ignore[return-value]
    from ..kernels import launch

    with torch.cuda.device_of(input):
        outs = _empty((*forward_buffers(p), table_buffer(p)), input.device)
        ins = _named(input=input, weight=weight, target=target, ids=ids, bias=bias, seed=seed, scale=scale, tables=outs["tables"])
        launch.launch_tables(outs, ins, p)
        launch.launch_forward(outs, ins, p)
    names = ("loss", "lse", "peak", "shift", "average_dot", "average", "tables")
    return tuple(outs[name] for name in names)  # type: ignore[return-value]


def _fake_forward(
    input, weight, target, ids, bias, seed, scale, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad, impl,
):  # fmt: skip
    sizes = [input.shape[0]] * 4 + [input.shape[0] if scale_grad else 0]
    rows = [input.new_empty(n, dtype=torch.float32) for n in sizes]
    size = 0
    if impl != "reference":
        p = _problem(
            input, weight, ids, bias, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad
        )
        size = table_buffer(p).size
    return *rows, torch.empty_like(input), input.new_empty(size, dtype=torch.int32)


def _backward(
    input: Tensor, weight: Tensor, target: Tensor, ids: Tensor | None, bias: Tensor | None, seed: Tensor, scale: Tensor,
    loss: Tensor, peak: Tensor, shift: Tensor, average_dot: Tensor, average: Tensor, tables: Tensor, grad_loss: Tensor, grad_lse: Tensor,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of input, weight, bias (empty without one) and each row's part of the scale's, (N,) with scale_grad."""
    p = _problem(
        input, weight, ids, bias, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad
    )
    if impl == "reference":
        rows = (loss, peak, shift, average_dot, average)
        with torch.autocast(input.device.type, enabled=False):
            return reference.backward(input, weight, target, ids, bias, seed, scale, *rows, grad_loss, grad_lse, p)
    from ..kernels import launch

    with torch.cuda.device_of(input):
        outs = _empty(backward_buffers(p), input.device)
        keys = launch.split_tables(p, tables)["positive_key"]
        ins = _named(
            input=input, weight=weight, target=target, ids=ids, bias=bias, scale=scale, tables=tables,
            loss=loss, peak=peak, shift=shift, average_dot=average_dot, average=average, grad_loss=grad_loss, grad_lse=grad_lse,
        )  # fmt: skip
        ins["sorted_keys"], ins["sorted_rows"] = torch.sort(keys, stable=True)
        if ids is not None:
            valid = torch.where((ids >= 0) & (ids < p.num_items), ids, NO_ID).int().flatten()
            ins["sorted_ids"], ins["sorted_draws"] = torch.sort(valid, stable=True)
        launch.launch_backward(outs, ins, p)
    return outs["input_grad"], outs["item_grad"], outs["bias_grad"], outs["scale_grad"]


def _fake_backward(input, weight, target, ids, bias, *others):
    bias_grad = input.new_empty(0, dtype=torch.float32) if bias is None else torch.empty_like(bias)
    return (
        torch.empty_like(input),
        torch.empty_like(weight),
        bias_grad,
        input.new_empty(input.shape[0] if others[-2] else 0, dtype=torch.float32),
    )


def _setup_forward(ctx, inputs, output) -> None:
    input, weight, target, ids, bias, seed, scale, *ctx.options = inputs
    loss, _, *saved = output
    ctx.save_for_backward(input, weight, target, ids, bias, seed, scale, loss, *saved)
    ctx.mark_non_differentiable(*saved)


def _forward_gradients(ctx, grad_loss, grad_lse, *_):
    grad_loss, grad_lse = grad_loss.contiguous(), grad_lse.contiguous()
    input_grad, weight_grad, bias_grad, scale_grad = backward(*ctx.saved_tensors, grad_loss, grad_lse, *ctx.options)
    bias_grad = bias_grad if ctx.needs_input_grad[4] else None
    scale_grad = scale_grad.sum().view(1) if ctx.needs_input_grad[6] else None
    return input_grad, weight_grad, None, None, bias_grad, None, scale_grad, *[None] * len(ctx.options)


def _no_second_derivatives(ctx, *_):
    raise NotImplementedError("cce_minus: the loss has no second derivatives; differentiate its gradient by another method")


def _operator(name: str, implementation: Callable, fake: Callable, gradients: Callable, setup: Callable) -> Callable:
    """Registers an operator by hand, without the host time of ``custom_op``'s wrapper."""
    qualified = f"cce_minus::{name}"
    schema = torch.library.infer_schema(implementation, mutates_args=())
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, ("cpu", "cuda"))(implementation)
    torch.library.register_fake(qualified)(fake)
    torch.library.register_autograd(qualified, gradients, setup_context=setup)
    return getattr(torch.ops.cce_minus, name).default


forward = _operator("forward", _forward, _fake_forward, _forward_gradients, _setup_forward)
backward = _operator("backward", _backward, _fake_backward, _no_second_derivatives, lambda ctx, inputs, output: None)
