"""The loss as ``torch.library`` operators: forward and backward, with fake and autograd registrations.

They run either the Triton kernels or the reference. Row losses and row partition sums come out; weights and reductions
are plain torch around them (``row_losses.py``), so their gradients need no code here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.draws.draw import Draw, given_ids, on_rows
from ...kernels.negatives.samplers import sampler_of
from ...kernels.plan.buffers import Buffer, backward_buffers, forward_buffers, pool_buffers, table_buffer
from ...kernels.plan.problem import (
    EVERY_GRADIENT,
    INTERPRETER_GPU,
    NO_ID,
    Dtype,
    HistorySize,
    Problem,
    Shapes,
    Wanted,
    build_problem,
    cached_problem,
)
from ...kernels.plan.tiles import Gpu
from . import reference
from .operands import Operands, Options, Saved, schema, split

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int32": torch.int32}
INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_NAMES: dict[torch.dtype, Dtype] = {dtype: name for name, dtype in DTYPES.items()}  # type: ignore[misc]
Layout = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
RESULTS = 3  # of the forward's outputs what a caller reads; the rest is kept for the backward
FORWARD_OUTPUTS = ("loss", "lse", "counted", *Saved._fields[1:6])


@functools.cache
def gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    return Gpu(properties.multi_processor_count, 10 * properties.major + properties.minor)


@functools.lru_cache(maxsize=256)
def draw_of(sampler: str, num_items: int, has_rows: bool = False) -> Draw:
    """A sampler's draw; ``has_rows``: for a table that is the rows of a working set."""
    draw = sampler_of(sampler).draw(num_items)
    return on_rows(draw, num_items) if has_rows else draw


def shapes_of(
    num_rows: int, dim: int, num_items: int, input_dtype: torch.dtype, weight_dtype: torch.dtype,
    bias_dtype: torch.dtype | None, history: HistorySize | None, device: torch.device,
) -> Shapes:  # fmt: skip
    bias = None if bias_dtype is None else _NAMES[bias_dtype]
    of_gpu = gpu(device.index or 0) if device.type == "cuda" else INTERPRETER_GPU
    return Shapes(num_rows, dim, num_items, _NAMES[input_dtype], _NAMES[weight_dtype], bias, history, of_gpu)


def _problem(x: Operands, options: Options, wanted: Wanted = EVERY_GRADIENT) -> Problem:
    (num_rows, dim), num_items, history = x.input.shape, x.weight.shape[0], None
    if x.history_offsets is not None and x.history_items is not None:
        history = HistorySize(x.history_offsets.shape[0] - 1, x.history_items.shape[0])
    ids_shape = None if x.ids is None else tuple(x.ids.shape)
    symbolic = any(isinstance(size, torch.SymInt) for size in (num_rows, dim, num_items, *(history or ())))
    if options.sampler:
        draw = (draw_of.__wrapped__ if symbolic else draw_of)(
            options.sampler, options.catalog or num_items, options.catalog > 0
        )
    else:
        assert ids_shape is not None
        draw = replace(given_ids(ids_shape, options.ids_group), catalog=options.catalog)
    symbolic = symbolic or any(isinstance(size, torch.SymInt) for size in ids_shape or ())
    bias_dtype = None if x.bias is None else x.bias.dtype
    shapes = shapes_of(num_rows, dim, num_items, x.input.dtype, x.weight.dtype, bias_dtype, history, x.input.device)
    build = build_problem if symbolic else cached_problem
    return build(shapes, options.choices, draw, wanted)


def layout_of(buffers: Iterable[Buffer]) -> Layout:
    """Name, shape and dtype of the buffers that have elements."""
    return tuple((b.name, b.shape, DTYPES[b.dtype]) for b in buffers if b.size)


@functools.lru_cache(maxsize=256)
def _forward_layout(p: Problem) -> Layout:
    return layout_of((*forward_buffers(p), *pool_buffers(p), table_buffer(p)))


@functools.lru_cache(maxsize=256)
def _backward_layout(p: Problem, with_input_grad: bool) -> Layout:
    return layout_of(b for b in backward_buffers(p) if with_input_grad or b.name != "input_grad")


def _empty(layout: Layout, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.empty(shape, dtype=dtype, device=device) for name, shape, dtype in layout}


def _named(tensors: NamedTuple) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors._asdict().items() if tensor is not None}


def _table(tables: Tensor, name: str, p: Problem, *shape: int) -> Tensor:
    """A part of the table buffer, which fills ``shape``."""
    from ...kernels.launch.bindings import table_parts

    start = table_parts(p)[name].offset
    return tables[start : start + torch.Size(shape).numel()].view(shape)


def _choose_lists(outs: Mapping[str, Tensor], pool_ids: Tensor, p: Problem) -> None:
    """Put the highest-scoring columns of each group's pool into the tables, those of equal scores in their order."""
    order = torch.sort(outs["pool_scores"], dim=1, descending=True, stable=True).indices[:, : p.negatives]
    _table(outs["tables"], "lists", p, p.num_groups, p.negatives).copy_(pool_ids.gather(1, order))


def _forward(*args) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """FORWARD_OUTPUTS of rows, by operands and options."""
    x, _, options = split(args)
    p = _problem(x, options)
    if not x.input.is_cuda:
        reference.check_ranges(x, p)
    if options.impl == "reference":
        with torch.autocast(x.input.device.type, enabled=False):
            loss, lse, *saved = reference.forward(x, p)
            counted = (x.target != p.ignore_index).sum(dtype=torch.float32).clamp(min=1)
        no_tables = torch.empty(0, dtype=torch.int32, device=x.input.device)
        return loss, lse, counted, *saved, no_tables  # type: ignore[return-value]
    from ...kernels.launch import loss as launch

    with torch.cuda.device_of(x.input):
        outs, ins = _empty(_forward_layout(p), x.input.device), _named(x)
        if p.chooses:
            launch.launch_pool(outs, ins, p)
            _choose_lists(outs, outs["pool_ids"] if x.ids is None else x.ids, p)
        launch.launch_forward(outs, ins, p)
    if not p.scale_grad:
        outs["average_dot"] = torch.empty(0, dtype=torch.float32, device=x.input.device)
    return tuple(outs[name] for name in FORWARD_OUTPUTS)  # type: ignore[return-value]


def _fake_forward(*args):
    x, _, options = split(args)
    num_rows = x.input.shape[0]
    shapes = [(num_rows,)] * 2 + [()] + [(num_rows,)] * 2 + [(num_rows if options.scale_grad else 0,)]
    rows = [x.input.new_empty(shape, dtype=torch.float32) for shape in shapes]
    size = 0 if options.impl == "reference" else table_buffer(_problem(x, options)).size
    return *rows, torch.empty_like(x.input), x.input.new_empty(size, dtype=torch.int32)


def num_keys(p: Problem) -> int:
    """Of rows, and behind them of the draws of groups' lists."""
    return p.num_rows + (p.listed.draws if p.listed else 0)


def _draw_keys(ids: Tensor, target: Tensor, p: Problem) -> Tensor:
    """What explicit ids are sorted by; those that ignored rows have for themselves as none."""
    is_draw = (ids >= 0) & (ids < p.num_items)
    if not p.kind.tiled:
        is_draw = is_draw & (target != p.ignore_index)[:, None]
    return torch.where(is_draw, ids, NO_ID).int().flatten()


def saved_and_wanted(between: tuple[object, ...]) -> tuple[Saved, Wanted]:
    """What the backward's operator takes between operands and options."""
    last = len(Saved._fields)
    return Saved(*between[:last]), Wanted(*between[last:])  # type: ignore[arg-type]


def _backward(*args) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, weight, bias and each row's part of the scale's (N,), empty where they are not wanted; by
    operands, ``Saved``, ``Wanted`` and options."""
    return _backward_into(None, *args)


def _backward_into(input_grad: Tensor | None, *args) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``_backward`` whose kernels write the gradient of input into ``input_grad``, which may be ``average``; None, and
    the reference, take new memory."""
    x, between, options = split(args)
    saved, wanted = saved_and_wanted(between)
    p = _problem(x, options, wanted)
    if options.impl == "reference":
        if saved.grad_lse is None:
            saved = saved._replace(grad_lse=torch.zeros_like(saved.loss))
        with torch.autocast(x.input.device.type, enabled=False):
            return _only(wanted, reference.backward(x, saved, p), x.input.device)
    from ...kernels.launch import loss as launch

    grad_loss, grad_lse = saved.grad_loss, saved.grad_lse
    saved = saved._replace(
        grad_loss=grad_loss if grad_loss.stride(0) in (0, 1) else grad_loss.contiguous(),
        grad_lse=None if grad_lse is None else grad_lse.contiguous(),
    )
    with torch.cuda.device_of(x.input):
        ins = _named(x) | _named(saved)
        if wanted.items:
            keys = x.positions
            if keys is None:
                keys = _table(saved.tables, "positive_key", p, num_keys(p))
            ins["sorted_keys"], ins["sorted_rows"] = torch.sort(keys, stable=True)
            if p.sorts_draws and x.ids is not None:
                ins["sorted_ids"], ins["sorted_draws"] = torch.sort(_draw_keys(x.ids, x.target, p), stable=True)
        # after the sorts, which need memory for themselves
        outs = _empty(_backward_layout(p, input_grad is None), x.input.device)
        if input_grad is not None and wanted.input:
            outs["input_grad"] = input_grad
        launch.launch_backward(outs, ins, p)
    named = [outs.get(name) for name in ("input_grad", "item_grad", "bias_grad", "scale_grad")]
    return _only(wanted, named, x.input.device)


def _only(
    wanted: Wanted, gradients: Sequence[Tensor | None], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients that are wanted, empty ones in place of the others."""
    none = torch.empty(0, dtype=torch.float32, device=device)
    return tuple(  # type: ignore[return-value]
        gradient if is_wanted and gradient is not None else none
        for gradient, is_wanted in zip(gradients, wanted, strict=True)
    )


def _fake_backward(*args):
    x, between, _ = split(args)
    _, wanted = saved_and_wanted(between)
    none = x.input.new_empty(0, dtype=torch.float32)
    of_tensors = zip((x.input, x.weight, x.bias), wanted[:3], strict=True)
    gradients = [
        none if tensor is None or not is_wanted else torch.empty_like(tensor) for tensor, is_wanted in of_tensors
    ]
    return *gradients, x.input.new_empty(x.input.shape[0], dtype=torch.float32) if wanted.scale else none


def _setup_forward(ctx, inputs, output) -> None:
    x, _, ctx.options = split(inputs)
    ctx.save_for_backward(*x, output[0], *output[RESULTS:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _gradients(ctx, compute: Callable, grad_loss: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    of_inputs = dict.fromkeys((*Operands._fields, *Options._fields))
    needed = dict(zip(of_inputs, ctx.needs_input_grad, strict=True))
    wanted = Wanted(*(needed[name] for name in Wanted._fields))
    if grad_loss is None:
        if grad_lse is None:
            return tuple(of_inputs.values())
        grad_loss = torch.zeros_like(grad_lse)
    gradients = compute(*ctx.saved_tensors, grad_loss, grad_lse, *wanted, *ctx.options)
    for name, gradient in zip(Wanted._fields, gradients, strict=True):
        if needed[name]:
            of_inputs[name] = gradient.sum().view(1) if name == "scale" else gradient
    return tuple(of_inputs.values())


def operator(name: str, schema: str, implementation: Callable, fake: Callable) -> Callable:
    """Registers an operator by hand, without the host time of ``custom_op``'s wrapper."""
    qualified = f"cce_minus::{name}"
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, ("cpu", "cuda"))(implementation)
    torch.library.register_fake(qualified)(fake)
    return getattr(torch.ops.cce_minus, name).default


# their derivatives are those of rows.py
backward = operator("backward", schema(4, Operands, Saved, Wanted, Options), _backward, _fake_backward)
forward = operator("forward", schema(len(FORWARD_OUTPUTS), Operands, Options), _forward, _fake_forward)


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
            average = args[len(Operands._fields) + Saved._fields.index("average")]
            return _backward_into(None if kept else average, *args)

        return _gradients(ctx, compute, *grads[:2])
