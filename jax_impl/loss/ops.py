"""The loss's forward and backward passes on flat rows: either the Triton kernels or the reference, chosen by platform.

Row losses and row partition sums come out; weights and reductions are plain JAX around them (``row_losses.py``), so
their gradients need no code here. How both passes behave under grad and vmap is in ``rows.py``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from ...interop import as_varying, call, gpu_numbers, local_gpus, own_settings, varying_axes
from ...kernels.draws.lists import ListDraws, plan_lists
from ...kernels.negatives.samplers import InBatchNegatives, Sampler
from ...kernels.plan.buffers import (
    Buffer,
    backward_buffers,
    forward_buffers,
    place,
    pool_buffers,
    table_buffer,
    table_sizes,
)
from ...kernels.plan.problem import INTERPRETER_GPU, NO_ID, Correction, HistorySize, Problem, cached_problem
from ...kernels.plan.tiles import Gpu
from . import reference
from .operands import Gradients, Operands, Rows

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]


class Drawn(NamedTuple):
    """How a call's candidates come about: a sampler that its own numbers describe, lists, or ids that are given."""

    sampler: Sampler | None = None
    lists: ListDraws | None = None
    group_size: int = 1
    shuffle_rows: bool = False
    targets: bool = False  # the ids are all rows' targets
    items_only: bool = False  # given ids of groups hold no empty slots


def drawn(sampler: Sampler | None, num_items: int) -> Drawn:
    """A sampler's draw, without the sampler itself where it holds arrays: what is compiled may outlive it."""
    lists = plan_lists(sampler, num_items)
    if lists is None and not isinstance(sampler, InBatchNegatives):
        return Drawn(sampler)
    group_size = getattr(sampler, "group_size", None) or 1
    return Drawn(
        None, lists, group_size, getattr(sampler, "shuffle_rows", False) and group_size > 1, targets=lists is None
    )


@dataclass(frozen=True)
class Options:
    """The static options of a call."""

    draw: Drawn
    softcap: float | None
    remove_accidental_hits: bool
    ignore_index: int
    scale_grad: bool
    positive_weight: float | None
    correction: Correction
    impl: str


class Saved(NamedTuple):
    """What the forward hands to the backward: its rows, and the kernels' tables (empty where the reference runs
    alone)."""

    rows: Rows
    tables: Array


def _problem(x: Operands, options: Options) -> Problem:
    draw, history = options.draw, None
    ids_shape = None if x.ids is None else x.ids.shape
    if x.history_offsets is not None and x.history_items is not None:
        history = HistorySize(x.history_offsets.shape[0] - 1, x.history_items.shape[0])
    return cached_problem(
        *x.input.shape, x.weight.shape[0], ids_shape, str(x.input.dtype), str(x.weight.dtype),
        None if x.bias is None else str(x.bias.dtype), draw.sampler, options.softcap, options.remove_accidental_hits,
        options.ignore_index, options.scale_grad, options.positive_weight, draw.group_size, draw.shuffle_rows,
        options.correction, draw.lists, draw.items_only, history, Gpu(*gpu_numbers(otherwise=INTERPRETER_GPU)),
    )  # type: ignore[arg-type]  # fmt: skip


def _launch_forward(outs: Tensors, ins: Tensors, p: Problem) -> None:
    from ...kernels.launch import loss as launch

    launch.launch_forward(outs, ins, p)


def _launch_pool(outs: Tensors, ins: Tensors, p: Problem) -> None:
    from ...kernels.launch import loss as launch

    launch.launch_pool(outs, ins, p)


def _launch_backward(outs: Tensors, ins: Tensors, p: Problem) -> None:
    from ...kernels.launch import loss as launch

    launch.launch_backward(outs, ins, p)


def _shapes(buffers: tuple[Buffer, ...]) -> dict[str, ShapeDtypeStruct]:
    return {b.name: ShapeDtypeStruct(b.shape, b.dtype) for b in buffers}


def _named(x: Operands) -> dict[str, Array]:
    return {name: array for name, array in x._asdict().items() if array is not None}


def _stable_sort(keys: Array) -> tuple[Array, Array]:
    """The sorted keys and the place each came from."""
    places = as_varying(jnp.arange(keys.size, dtype=jnp.int32), varying_axes(keys))
    return jax.lax.sort((keys, places), num_keys=1, is_stable=True)  # type: ignore[return-value]


def _draw_keys(ids: Array, p: Problem) -> Array:
    """What explicit ids are sorted by."""
    return jnp.where((ids >= 0) & (ids < p.num_items), ids, NO_ID).reshape(-1)


def _compile(p: Problem, x: Operands, *, backward: bool) -> None:
    """Compile the kernels while the call is traced: inside XLA's callback other work of the device would wait for
    it."""
    for gpu in local_gpus():
        from ...kernels.launch import loss as launch

        launch.compile_kernels(p, str(x.target.dtype), None if x.ids is None else str(x.ids.dtype), backward, gpu)


def _table(tables: Array, name: str, p: Problem, *shape: int) -> Array:
    """A part of the table buffer, which fills ``shape``."""
    start = place(table_sizes(p))[0][name]
    return tables[start : start + math.prod(shape)].reshape(shape)


def _chosen_tables(p: Problem, x: Operands) -> Array:
    """The tables with lists of the highest-scoring columns of each group's pool."""
    counted, *_ = (buffer for buffer in forward_buffers(p) if buffer.name == "counted")
    outs = call(_launch_pool, _shapes((counted, *pool_buffers(p), table_buffer(p))), _named(x), p)
    lists = jnp.take_along_axis(outs["pool_ids"], reference.highest(outs["pool_scores"], p.negatives), 1)
    return jax.lax.dynamic_update_slice(outs["tables"], lists.reshape(-1), (place(table_sizes(p))[0]["lists"],))


def _triton_forward(p: Problem, x: Operands) -> Saved:
    _compile(p, x, backward=False)
    ins, buffers, in_place = _named(x), (*forward_buffers(p), table_buffer(p)), {}
    if p.chooses:  # the forward writes the rest of the tables
        ins["tables"] = _chosen_tables(p, x)
        buffers = tuple(buffer for buffer in buffers if buffer.name != "counted")
        in_place = {"tables": "tables"}
    outs = call(_launch_forward, _shapes(buffers), ins, p, in_place=in_place)
    return Saved(Rows(*(outs[name] for name in Rows._fields)), outs["tables"])


def _triton_backward(p: Problem, x: Operands, saved: Saved, grad_loss: Array, grad_lse: Array) -> Gradients:
    _compile(p, x, backward=True)
    keys, rows = _stable_sort(_table(saved.tables, "positive_key", p, p.num_rows + p.list_draws))
    ins = _named(x) | saved.rows._asdict()
    ins |= {
        "tables": saved.tables,
        "grad_loss": grad_loss,
        "grad_lse": grad_lse,
        "sorted_keys": keys,
        "sorted_rows": rows,
    }
    if p.sorts_draws and x.ids is not None:
        ins["sorted_ids"], ins["sorted_draws"] = _stable_sort(_draw_keys(x.ids, p))
    outs = call(_launch_backward, _shapes(backward_buffers(p)), ins, p, in_place={"average": "input_grad"})
    return Gradients(outs["input_grad"], outs["item_grad"], outs["bias_grad"], outs["scale_grad"])


def _reference_forward(p: Problem, table_size: int, x: Operands) -> Saved:
    tables = as_varying(jnp.zeros(table_size, jnp.int32), varying_axes(x))
    return Saved(reference.forward(x, p), tables)


def _reference_backward(p: Problem, x: Operands, saved: Saved, grad_loss: Array, grad_lse: Array) -> Gradients:
    return reference.backward(x, saved.rows, grad_loss, grad_lse, p)


@own_settings()
@functools.partial(jax.jit, static_argnames="options")
def forward(x: Operands, options: Options) -> Saved:
    """The rows of ``x`` and what their gradients need; "auto" is settled when the call is lowered for a platform."""
    p = _problem(x, options)
    if options.impl == "reference":
        return _reference_forward(p, 0, x)
    kernels = functools.partial(_triton_forward, p)
    if options.impl == "triton":
        return kernels(x)
    # both branches are traced whatever the platform, so their results have the same shapes
    return jax.lax.platform_dependent(
        x, cuda=kernels, default=functools.partial(_reference_forward, p, table_buffer(p).size)
    )


@own_settings()
@functools.partial(jax.jit, static_argnames="options")
def backward(x: Operands, saved: Saved, grad_loss: Array, grad_lse: Array, options: Options) -> Gradients:
    """The gradients for the rows' upstream gradients (N,) fp32."""
    p = _problem(x, options)
    kernels, plain = functools.partial(_triton_backward, p), functools.partial(_reference_backward, p)
    operands = (x, saved, grad_loss, grad_lse)
    if options.impl == "auto":
        return jax.lax.platform_dependent(*operands, cuda=kernels, default=plain)
    return (kernels if options.impl == "triton" else plain)(*operands)
