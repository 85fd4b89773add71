"""Calls on plain tensors by the kernels: what their signature decides is decided once (``Plan``), memory is taken in
few pieces, and loss and reduction are one function to autograd.

All else (traced and transformed calls, explicit ids, histories) takes the operators (``ops.py``), which compute the
same by the same programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...kernels.draws.draw import Draw
from ...kernels.launch import loss as launch
from ...kernels.launch.bindings import table_parts
from ...kernels.negatives.arguments import Options
from ...kernels.negatives.base import Negatives
from ...kernels.plan.buffers import backward_buffers, forward_buffers, sort_buffers, table_buffer
from ...kernels.plan.problem import Problem, Shapes, Wanted, cached_problem
from . import operands, ops, reference
from .constants import constant
from .list_operands import list_operands
from .operands import Operands, Saved
from .pools import Pool, PooledProgram
from .row_losses import reduce, scale_of
from .rows import on_device
from .seeds import drawn_seed, seed_words

RETURNED = ("loss", "lse", "counted")  # of the forward's buffers, where rows are not reduced with them
PARTS = ("part_rows", "part_average")
_empty = torch.empty  # tests fill what it gives
GRADIENTS = {"input_grad": "input", "item_grad": "weight", "scale_grad": "scale", "bias_grad": "bias"}


class Read(NamedTuple):
    """What a forward reads beside its seed."""

    input: Tensor  # (..., D)
    weight: Tensor  # (V, D)
    scale: Tensor  # (1,) fp32
    bias: Tensor | None  # (V,)
    target: Tensor  # (...)
    log_weight: Tensor | None  # (V,) fp32
    slot_ends: Tensor | None  # int32


class Kept(NamedTuple):
    """What is kept for the backward."""

    input: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    target: Tensor
    log_weight: Tensor | None
    slot_ends: Tensor | None
    rows: Tensor  # fp32 numbers of rows, a pool
    tables: Tensor
    average: Tensor  # (..., D)
    loss: Tensor | None = None  # of rows, where it is returned


class _Gradients:
    """What backwards with the same wishes share."""

    def __init__(self, plan: Plan, wanted: Wanted, stride: int, has_lse: bool) -> None:
        p = cached_problem(plan.shapes, plan.static.choices, plan.draw, wanted)
        buffers = {buffer.name: buffer for buffer in backward_buffers(p)}
        sort = sort_buffers(p)
        self.work = Pool((*(buffer for name, buffer in buffers.items() if name not in GRADIENTS), *sort))
        self.outs = {name: buffers[name].dtype for name in GRADIENTS if buffers[name].size}
        self.keys = table_parts(p)["positive_key"].offset, ops.num_keys(p)
        self.sorts = p.wanted.items and not sort
        kinds: dict[str, torch.dtype | Pool] = dict(plan.kept_kinds)
        kinds |= {"grad_loss": torch.float32} | ({"grad_lse": torch.float32} if has_lse else {})
        kinds |= {"sorted_keys": torch.int32, "sorted_rows": torch.int64} if self.sorts else {}
        kinds |= {"work": self.work, **{name: getattr(torch, dtype) for name, dtype in self.outs.items()}}
        self.program = PooledProgram(launch.backward_program(p, stride, has_lse, bool(sort)), kinds)


@dataclass(eq=False)
class Plan:
    """What all calls of a signature share. ``target``: its dtype; ``fused``: loss and its mean or sum are one
    function."""

    shapes: Shapes
    options: Options
    static: operands.Options
    draw: Draw
    device: torch.device
    input_shape: tuple[int, ...]
    target: torch.dtype
    fused: bool

    @cached_property
    def problem(self) -> Problem:
        return cached_problem(self.shapes, self.static.choices, self.draw)

    @cached_property
    def rows(self) -> Pool:
        others = (*PARTS, "average", *(() if self.fused else RETURNED))
        return Pool(buffer for buffer in forward_buffers(self.problem) if buffer.name not in others)

    @cached_property
    def parts(self) -> Pool:
        return Pool(buffer for buffer in forward_buffers(self.problem) if buffer.name in PARTS)

    @cached_property
    def tables(self) -> int:
        return table_buffer(self.problem).size

    @cached_property
    def kept_kinds(self) -> dict[str, torch.dtype | Pool]:
        """Of what a forward reads and keeps, in the order in which programs take it; without the seed."""
        lists, dtype = self.draw.lists, getattr(torch, self.shapes.input_dtype)
        kinds: dict[str, torch.dtype | Pool] = {"input": dtype, "weight": getattr(torch, self.shapes.weight_dtype)}
        kinds["scale"] = torch.float32
        kinds |= {"bias": getattr(torch, self.shapes.bias_dtype)} if self.shapes.bias_dtype else {}
        kinds["target"] = self.target
        kinds |= {"log_weight": torch.float32} if self.static.correction == "weighted" else {}
        kinds |= {"slot_ends": torch.int32} if lists is not None and lists.slot_parts else {}
        kinds |= {"rows": self.rows, "tables": torch.int32, "average": dtype}
        return kinds if self.fused else kinds | {"loss": torch.float32}

    @cached_property
    def _forward(self) -> PooledProgram:
        kinds = self.kept_kinds | {"seed": torch.int32}
        kinds |= {} if self.fused else {"lse": torch.float32, "counted": torch.float32}
        kinds |= {"parts": self.parts} if self.parts.size else {}
        return PooledProgram(launch.forward_program(self.problem), kinds)

    @cached_property
    def _gradients(self) -> dict[tuple[Wanted, int, bool], _Gradients]:
        return {}

    @cached_property
    def _counted(self) -> int:
        return self.rows.first["counted"]

    def call(
        self, input: Tensor, weight: Tensor, target: Tensor, sampler: Negatives, bias: Tensor | None,
        sample_weight: Tensor | None, logit_scale: float | Tensor, seed: int | Tensor | None,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """A public loss's result; on the current device."""
        device = self.device
        if seed is not None:
            words = seed_words(seed, device)
        else:
            words = drawn_seed(device) if self.draw.random else constant(0, torch.int64, device)
        if isinstance(logit_scale, Tensor):
            scale = scale_of(logit_scale, device)
        else:
            scale = constant(float(logit_scale), torch.float32, device)
        slot_ends = log_weight = None
        if self.draw.lists is not None:
            slot_ends, log_weight = list_operands(sampler, self.draw, self.shapes.num_items, words, None)
            log_weight = log_weight if self.static.correction == "weighted" else None
        read = Read(input, weight, scale, bias, target, log_weight, slot_ends)
        requires_grad = input.requires_grad or weight.requires_grad or scale.requires_grad
        if torch.is_grad_enabled() and (requires_grad or (bias is not None and bias.requires_grad)):
            results = _Plain.apply(self, words, read, input, weight, scale, bias)
        else:
            results = self.forward(words, read)[0]
        if self.fused:
            return results
        row_loss, row_lse, counted = results
        loss = reduce(row_loss, counted, target, sample_weight, self.options)
        return (loss, row_lse) if self.options.return_lse else loss

    def forward(self, seed: Tensor, read: Read) -> tuple[Any, Kept]:
        """(the loss, or rows' losses, lse and their number; what is kept for the backward)."""
        device = self.device
        if device.type == "cpu":
            reference.check_ranges(self._operands(read, seed), self.problem)
        rows = _empty(self.rows.size, dtype=torch.float32, device=device)
        tables = _empty(self.tables, dtype=torch.int32, device=device)
        average = _empty(self.input_shape, dtype=read.input.dtype, device=device)
        tensors = [each for each in read if each is not None]
        tensors += (rows, tables, average)
        own: tuple[Tensor, ...] = ()
        if not self.fused:
            shapes = self.input_shape[:-1], self.input_shape[:-1], ()
            own = tuple(_empty(shape, dtype=torch.float32, device=device) for shape in shapes)
        tensors += (*own[:1], seed, *own[1:])
        if self.parts.size:
            tensors.append(_empty(self.parts.size, dtype=torch.float32, device=device))
        self._forward.run(tensors)
        kept = Kept(*read, rows, tables, average, *own[:1])
        if own:
            return own, kept
        total = rows.narrow(0, 0, self.shapes.num_rows).sum()
        return total if self.options.reduction == "sum" else total / rows.select(0, self._counted), kept

    def _operands(self, read: Read | Kept, seed: Tensor) -> Operands:
        """Flat rows."""
        return Operands(
            read.input.reshape(-1, self.shapes.dim), read.weight, read.target.view(-1), seed, read.scale, read.bias,
            log_weight=read.log_weight, slot_ends=read.slot_ends,
        )  # fmt: skip

    def upstream(self, grads: Sequence[Tensor | None], rows: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """(N,) of loss and lse, the loss's 0-dim where it is the same of all rows; None where there is none."""
        grad_loss, *others = grads
        if self.fused:
            if grad_loss is None:
                return None
            return grad_loss if self.options.reduction == "sum" else grad_loss / rows.select(0, self._counted), None
        grad_lse = others[0]
        if grad_loss is None:
            if grad_lse is None:
                return None
            grad_loss = torch.zeros_like(grad_lse)
        return grad_loss.reshape(-1), None if grad_lse is None else grad_lse.reshape(-1)

    def backward(
        self, wanted: Wanted, kept: Kept, of_loss: Tensor, of_lse: Tensor | None, keeps_average: bool
    ) -> list[Tensor | None]:
        """Gradients of input, weight, scale and bias."""
        if of_loss.ndim and of_loss.stride(0) not in (0, 1):
            of_loss = of_loss.contiguous()
        of_lse = None if of_lse is None else of_lse.contiguous()
        stride = of_loss.stride(0) if of_loss.ndim else 0
        key = wanted, stride, of_lse is not None
        shared = self._gradients.get(key)
        if shared is None:
            shared = self._gradients[key] = _Gradients(self, *key)
        tensors = [each for each in kept if each is not None]
        tensors.append(of_loss)
        if of_lse is not None:
            tensors.append(of_lse)
        if shared.sorts:
            tensors += torch.sort(kept.tables.narrow(0, *shared.keys), stable=True)
        # after the sort, which needs memory for itself
        device, outs = self.device, shared.outs
        gradients: list[Tensor | None] = [None] * 4
        tensors.append(_empty(shared.work.size, dtype=torch.int32, device=device))
        if "input_grad" in outs:
            average = kept.average
            gradients[0] = _empty(average.shape, dtype=average.dtype, device=device) if keeps_average else average
        if "item_grad" in outs:
            gradients[1] = _empty(kept.weight.shape, dtype=kept.weight.dtype, device=device)
        if "scale_grad" in outs:
            gradients[2] = _empty(self.shapes.num_rows, dtype=torch.float32, device=device)
        if "bias_grad" in outs and kept.bias is not None:
            gradients[3] = _empty(kept.bias.shape, dtype=kept.bias.dtype, device=device)
        tensors += [each for each in gradients if each is not None]
        shared.program.run(tensors)
        return gradients

    def differentiated_again(
        self, wanted: Wanted, kept: Kept, of_loss: Tensor, of_lse: Tensor | None
    ) -> list[Tensor | None]:
        """``backward`` by the operator, which refuses when it comes to that."""
        loss = self.rows.array("loss", kept.rows) if kept.loss is None else kept.loss.view(-1)
        peak, shift, average_dot = (self.rows.array(name, kept.rows) for name in ("peak", "shift", "average_dot"))
        average = kept.average.view(-1, self.shapes.dim)
        x = self._operands(kept, kept.tables[:2])  # a backward reads no seed
        saved = Saved(loss, peak, shift, average_dot, average, kept.tables, of_loss.expand(len(loss)), of_lse)
        grads = ops.backward(*x, *saved, *wanted, *self.static)
        of_input, of_weight, of_bias, of_scale = (
            grad if is_wanted else None for grad, is_wanted in zip(grads, wanted, strict=True)
        )
        return [None if of_input is None else of_input.view(self.input_shape), of_weight, of_scale, of_bias]


class _Plain(torch.autograd.Function):
    """A plan's results on what it reads, of which the last arguments are what may be differentiated for."""

    @staticmethod
    def forward(ctx, plan, seed, read, *_):
        results, kept = plan.forward(seed, read)
        ctx.plan = plan
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)
        if not plan.fused:
            ctx.mark_non_differentiable(results[2])
        return results

    @staticmethod
    def backward(ctx, *grads):
        plan, kept = ctx.plan, Kept(*ctx.saved_tensors)
        upstream = plan.upstream(grads, kept.rows)
        if upstream is None:
            return (None,) * 7
        of_input, of_weight, of_scale, of_bias = ctx.needs_input_grad[3:]
        wanted = Wanted(of_input, of_weight, of_bias, of_scale)
        if torch.is_grad_enabled():
            gradients = plan.differentiated_again(wanted, kept, *upstream)
        else:
            # no one else can hold the average: unless the graph is kept for another run, its memory takes the gradient
            keeps = torch._C._autograd._get_current_graph_task_keep_graph()  # type: ignore[attr-defined]
            gradients = on_device(plan.device, plan.backward, wanted, kept, *upstream, keeps)
        if gradients[2] is not None:
            gradients[2] = gradients[2].sum().view(1)
        return None, None, None, *gradients
