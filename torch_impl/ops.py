"""The loss as ``torch.library`` operators: forward and backward, with fake and autograd registrations.

They run either the Triton kernels or the reference. Row losses and row partition sums come out; weights and reductions are plain
torch around them (``loss.py``), so their gradients need no code here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..kernels.buffers import Buffer, backward_buffers, forward_buffers, table_buffer
from ..kernels.configs import Gpu
from ..kernels.problem import INTERPRETER_GPU, NO_ID, Dtype, Problem, build_problem, cached_problem
from ..kernels.samplers import AllItems, UniformNegatives
from . import reference

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int32": torch.int32}
_NAMES: dict[torch.dtype, Dtype] = {dtype: name for name, dtype in _DTYPES.items()}  # type: ignore[misc]
Layout = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
FORWARD_OUTPUTS = ("loss", "lse", "counted", "peak", "shift", "average_dot", "average", "tables")
OPERANDS = 8  # tensors of a call, before its options
AVERAGE = 12  # its place among what is saved
RESULTS = 3  # of them what a caller reads; the rest is kept for the backward


@functools.cache
def gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    return Gpu(properties.multi_processor_count, 10 * properties.major + properties.minor)


def _problem(
    input: Tensor, weight: Tensor, ids: Tensor | None, bias: Tensor | None,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool, positive_weight: float | None, correction: str,
) -> Problem:  # fmt: skip
    sampler = None
    if ids is None:
        sampler = UniformNegatives(num_negatives, group_size, shuffle_rows) if num_negatives else AllItems()
    (num_rows, dim), num_items, ids_shape = input.shape, weight.shape[0], None if ids is None else tuple(ids.shape)
    symbolic = any(isinstance(size, torch.SymInt) for size in (num_rows, dim, num_items, *(ids_shape or ())))
    return (build_problem if symbolic else cached_problem)(
        num_rows, dim, num_items, ids_shape, _NAMES[input.dtype], _NAMES[weight.dtype], None if bias is None else _NAMES[bias.dtype],
        sampler, softcap, remove_hits, ignore_index, scale_grad, positive_weight, 1 if ids is None else group_size,
        shuffle_rows and ids is not None and group_size > 1, correction,  # type: ignore[arg-type]
        ids is not None and num_negatives > 0,
        gpu(input.device.index or 0) if input.is_cuda else INTERPRETER_GPU,
    )  # fmt: skip


def layout_of(buffers: Iterable[Buffer]) -> Layout:
    """Name, shape and dtype of the buffers that have elements."""
    return tuple((b.name, b.shape, _DTYPES[b.dtype]) for b in buffers if b.size)


@functools.lru_cache(maxsize=256)
def _forward_layout(p: Problem) -> Layout:
    return layout_of((*forward_buffers(p), table_buffer(p)))


@functools.lru_cache(maxsize=256)
def _backward_layout(p: Problem, with_input_grad: bool) -> Layout:
    return layout_of(b for b in backward_buffers(p) if with_input_grad or b.name != "input_grad")


def _empty(layout: Layout, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.empty(shape, dtype=dtype, device=device) for name, shape, dtype in layout}


def _named(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _forward(
    input: Tensor, weight: Tensor, target: Tensor, ids: Tensor | None, bias: Tensor | None, seed: Tensor, scale: Tensor,
    log_weight: Tensor | None,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool, positive_weight: float | None, correction: str, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """FORWARD_OUTPUTS of rows: input (N, D), weight (V, D), target (N,), ids (K,), (N, K) or with a group_size above 1 (groups, K), bias (V,),
    seed (2,) int32 words (low, high), scale (1,), log_weight (V,) fp32; all contiguous. num_negatives 0 takes every item;
    beside groups' ids it says that a sampler drew them, so that all are items."""
    p = _problem(
        input, weight, ids, bias, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad,
        positive_weight, correction,
    )  # fmt: skip
    if not input.is_cuda:
        reference.check_ranges(target, ids, p)
    if impl == "reference":
        with torch.autocast(input.device.type, enabled=False):
            loss, lse, *saved = reference.forward(input, weight, target, ids, bias, seed, scale, log_weight, p)
            counted = (target != ignore_index).sum(dtype=torch.float32).clamp(min=1)
        return loss, lse, counted, *saved, torch.empty(0, dtype=torch.int32, device=input.device)  # type: ignore[return-value]
    from ..kernels import launch

    with torch.cuda.device_of(input):
        outs = _empty(_forward_layout(p), input.device)
        ins = _named(
            input=input,
            weight=weight,
            target=target,
            ids=ids,
            bias=bias,
            seed=seed,
            scale=scale,
            log_weight=log_weight,
        )
        launch.launch_forward(outs, ins, p)
    if not scale_grad:
        outs["average_dot"] = torch.empty(0, device=input.device)
    return tuple(outs[name] for name in FORWARD_OUTPUTS)  # type: ignore[return-value]


def _fake_forward(
    input, weight, target, ids, bias, seed, scale, log_weight, num_negatives, group_size, shuffle_rows, softcap, remove_hits,
    ignore_index, scale_grad, positive_weight, correction, impl,
):  # fmt: skip
    shapes = [(input.shape[0],)] * 2 + [()] + [(input.shape[0],)] * 2 + [(input.shape[0] if scale_grad else 0,)]
    rows = [input.new_empty(shape, dtype=torch.float32) for shape in shapes]
    size = 0
    if impl != "reference":
        p = _problem(
            input, weight, ids, bias, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad,
            positive_weight, correction,
        )  # fmt: skip
        size = table_buffer(p).size
    return *rows, torch.empty_like(input), input.new_empty(size, dtype=torch.int32)


def _draw_keys(ids: Tensor, p: Problem) -> Tensor:
    """What draws are sorted by: the item; in groups' lists within the columns that are added together."""
    is_item = (ids >= 0) & (ids < p.num_items)
    if p.mode != "group_ids":
        return torch.where(is_item, ids, NO_ID).int().flatten()
    first_key = torch.arange(p.negatives, dtype=torch.int32, device=ids.device) // p.list_columns * (p.num_items + 1)
    return (torch.where(is_item, ids, p.num_items).int() + first_key).flatten()


def _backward(
    input: Tensor, weight: Tensor, target: Tensor, ids: Tensor | None, bias: Tensor | None, seed: Tensor, scale: Tensor,
    log_weight: Tensor | None, loss: Tensor, peak: Tensor, shift: Tensor, average_dot: Tensor, average: Tensor,
    tables: Tensor,
    grad_loss: Tensor, grad_lse: Tensor | None,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool, positive_weight: float | None, correction: str, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of input, weight, bias (empty without one) and each row's part of the scale's, (N,) with scale_grad."""
    saved = (loss, peak, shift, average_dot, average, tables)
    options = (
        num_negatives,
        group_size,
        shuffle_rows,
        softcap,
        remove_hits,
        ignore_index,
        scale_grad,
        positive_weight,
        correction,
        impl,
    )
    return _backward_into(None, input, weight, target, ids, bias, seed, scale, log_weight, *saved, grad_loss, grad_lse, *options)


def _backward_into(
    input_grad: Tensor | None, input: Tensor, weight: Tensor, target: Tensor, ids: Tensor | None, bias: Tensor | None, seed: Tensor,
    scale: Tensor, log_weight: Tensor | None, loss: Tensor, peak: Tensor, shift: Tensor, average_dot: Tensor,
    average: Tensor, tables: Tensor,
    grad_loss: Tensor, grad_lse: Tensor | None,
    num_negatives: int, group_size: int, shuffle_rows: bool, softcap: float | None, remove_hits: bool, ignore_index: int,
    scale_grad: bool, positive_weight: float | None, correction: str, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """``_backward`` whose kernels write the gradient of input into ``input_grad``, which may be ``average``; None, and the reference,
    take new memory."""
    p = _problem(
        input, weight, ids, bias, num_negatives, group_size, shuffle_rows, softcap, remove_hits, ignore_index, scale_grad,
        positive_weight, correction,
    )  # fmt: skip
    if impl == "reference":
        rows = (loss, peak, shift, average_dot, average)
        grad_lse = torch.zeros_like(loss) if grad_lse is None else grad_lse
        with torch.autocast(input.device.type, enabled=False):
            return reference.backward(input, weight, target, ids, bias, seed, scale, log_weight, *rows, grad_loss, grad_lse, p)
    from ..kernels import launch

    with torch.cuda.device_of(input):
        keys = tables.narrow(0, launch.table_parts(p)["positive_key"].offset, p.num_rows)
        ins = _named(
            input=input, weight=weight, target=target, ids=ids, bias=bias, scale=scale, log_weight=log_weight, tables=tables,
            loss=loss, peak=peak, shift=shift, average_dot=average_dot, average=average,
            grad_loss=grad_loss if grad_loss.stride(0) in (0, 1) else grad_loss.contiguous(),
            grad_lse=None if grad_lse is None else grad_lse.contiguous(),
        )  # fmt: skip
        ins["sorted_keys"], ins["sorted_rows"] = torch.sort(keys, stable=True)
        if ids is not None:
            ins["sorted_ids"], ins["sorted_draws"] = torch.sort(_draw_keys(ids, p), stable=True)
        outs = _empty(_backward_layout(p, input_grad is None), input.device)  # after the sorts, which need memory for themselves
        if input_grad is not None:
            outs["input_grad"] = input_grad
        launch.launch_backward(outs, ins, p)
    for name in ("bias_grad", "scale_grad"):
        if name not in outs:
            outs[name] = torch.empty(0, device=input.device)
    return outs["input_grad"], outs["item_grad"], outs["bias_grad"], outs["scale_grad"]


def _fake_backward(input, weight, target, ids, bias, *others):
    bias_grad = input.new_empty(0, dtype=torch.float32) if bias is None else torch.empty_like(bias)
    scale_grad = input.new_empty(input.shape[0] if others[-4] else 0, dtype=torch.float32)
    return torch.empty_like(input), torch.empty_like(weight), bias_grad, scale_grad


def _setup_forward(ctx, inputs, output) -> None:
    tensors, ctx.options = inputs[:OPERANDS], inputs[OPERANDS:]
    ctx.save_for_backward(*tensors, output[0], *output[RESULTS:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _gradients(ctx, compute: Callable, grad_loss: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    of_inputs: list[Tensor | None] = [None] * (OPERANDS + len(ctx.options))
    if grad_loss is None:
        if grad_lse is None:
            return tuple(of_inputs)
        grad_loss = torch.zeros_like(grad_lse)
    *of_inputs[:2], bias_grad, scale_grad = compute(*ctx.saved_tensors, grad_loss, grad_lse, *ctx.options)
    if ctx.needs_input_grad[4]:
        of_inputs[4] = bias_grad
    if ctx.needs_input_grad[6]:
        of_inputs[6] = scale_grad.sum().view(1)
    return tuple(of_inputs)


def _no_second_derivatives(ctx, *_):
    raise NotImplementedError("cce_minus: the loss has no second derivatives; differentiate its gradient by another method")


def operator(
    name: str, implementation: Callable, fake: Callable, gradients: Callable | None = None, setup: Callable | None = None
) -> Callable:
    """Registers an operator by hand, without the host time of ``custom_op``'s wrapper."""
    qualified = f"cce_minus::{name}"
    schema = torch.library.infer_schema(implementation, mutates_args=())
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, ("cpu", "cuda"))(implementation)
    torch.library.register_fake(qualified)(fake)
    if gradients is not None:
        torch.library.register_autograd(qualified, gradients, setup_context=setup)
    return getattr(torch.ops.cce_minus, name).default


backward = operator("backward", _backward, _fake_backward, _no_second_derivatives, lambda ctx, inputs, output: None)
forward = operator("forward", _forward, _fake_forward, lambda ctx, *grads: _gradients(ctx, backward, *grads[:2]), _setup_forward)


class _Rows(torch.autograd.Function):
    """``forward`` without the dispatcher, which costs more host time than the kernels take."""

    @staticmethod
    def forward(ctx, *args):
        output = _forward(*args)
        _setup_forward(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx, *grads):
        if torch.is_grad_enabled():  # differentiated again: the operator refuses when it comes to that
            return _gradients(ctx, backward, *grads[:2])

        def compute(*args):
            # no one else can hold the average: unless the graph is kept for another run, its memory takes the gradient
            kept = torch._C._autograd._get_current_graph_task_keep_graph()  # type: ignore[attr-defined]
            return _backward_into(None if kept else args[AVERAGE], *args)

        return _gradients(ctx, compute, *grads[:2])


def rows(*args) -> tuple[Tensor, Tensor, Tensor]:
    """loss, lse (N,) and the number of counted rows (at least 1), by ``forward``'s arguments; differentiable in loss and lse."""
    if torch.compiler.is_compiling():
        return forward(*args)[:RESULTS]
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    plain = all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
    transformed = _get_current_dispatch_mode() is not None or torch._C._are_functorch_transforms_active()
    if transformed or not plain:
        return forward(*args)[:RESULTS]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _Rows.apply(*args)[:RESULTS]  # type: ignore[index]
    return _forward(*args)[:RESULTS]
