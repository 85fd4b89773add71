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
from ...kernels.draws.draw import Draw, given_ids
from ...kernels.plan.buffers import (
    Buffer,
    backward_buffers,
    forward_buffers,
    place,
    pool_buffers,
    table_buffer,
    table_sizes,
)
from ...kernels.plan.problem import (
    EVERY_GRADIENT,
    INTERPRETER_GPU,
    NO_ID,
    Choices,
    HistorySize,
    Problem,
    Shapes,
    Wanted,
    cached_problem,
)
from ...kernels.plan.tiles import Gpu
from . import reference
from .operands import Gradients, Operands, Rows

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Options:
    """The static options of a call: a sampler's draw or else ids that ``ids_group`` rows share, its choices, and the
    gradients asked for."""

    draw: Draw | None
    choices: Choices
    impl: str
    ids_group: int = 1
    wanted: Wanted = EVERY_GRADIENT


class Saved(NamedTuple):
    """What the forward hands to the backward: its rows, and the kernels' tables (None where the reference runs
    alone)."""

    rows: Rows
    tables: Array | None


def _problem(x: Operands, options: Options) -> Problem:
    history = None
    if x.history_offsets is not None and x.history_items is not None:
        history = HistorySize(x.history_offsets.shape[0] - 1, x.history_items.shape[0])
    (num_rows, dim), num_items = x.input.shape, x.weight.shape[0]
    dtypes = str(x.input.dtype), str(x.weight.dtype), None if x.bias is None else str(x.bias.dtype)
    gpu = Gpu(*gpu_numbers(otherwise=INTERPRETER_GPU))
    shapes = Shapes(num_rows, dim, num_items, *dtypes, history, gpu)  # type: ignore[arg-type]
    draw = options.draw
    if draw is None:
        assert x.ids is not None
        draw = given_ids(x.ids.shape, options.ids_group)
    return cached_problem(shapes, options.choices, draw, options.wanted)


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
    return {b.name: ShapeDtypeStruct(b.shape, b.dtype) for b in buffers if b.size}


def _named(x: NamedTuple) -> dict[str, Array]:
    return {name: array for name, array in x._asdict().items() if array is not None}


def _stable_sort(keys: Array) -> tuple[Array, Array]:
    """The sorted keys and the place each came from."""
    places = as_varying(jnp.arange(keys.size, dtype=jnp.int32), varying_axes(keys))
    return jax.lax.sort((keys, places), num_keys=1, is_stable=True)  # type: ignore[return-value]


def _num_keys(p: Problem) -> int:
    """Of rows, and behind them of the draws of groups' lists."""
    return p.num_rows + (p.listed.draws if p.listed else 0)


def _draw_keys(ids: Array, target: Array, p: Problem) -> Array:
    """What explicit ids are sorted by; those that ignored rows have for themselves as none."""
    is_draw = (ids >= 0) & (ids < p.num_items)
    if not p.kind.tiled:
        is_draw = is_draw & (target != p.ignore_index)[:, None]
    return jnp.where(is_draw, ids, NO_ID).reshape(-1)


def _compile(p: Problem, x: Operands, *, backward: bool) -> None:
    """Begin to compile the kernels while the call is traced, beside XLA's compiler."""
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
    pool = outs["pool_ids"] if x.ids is None else x.ids
    lists = jnp.take_along_axis(pool, reference.highest(outs["pool_scores"], p.negatives), 1)
    return jax.lax.dynamic_update_slice(outs["tables"], lists.reshape(-1), (place(table_sizes(p))[0]["lists"],))


def _triton_forward(p: Problem, x: Operands) -> Saved:
    _compile(p, x, backward=False)
    ins, buffers, in_place = _named(x), (*forward_buffers(p), table_buffer(p)), {}
    if p.chooses:  # the forward writes the rest of the tables
        ins["tables"] = _chosen_tables(p, x)
        buffers = tuple(buffer for buffer in buffers if buffer.name != "counted")
        in_place = {"tables": "tables"}
    outs = call(_launch_forward, _shapes(buffers), ins, p, in_place=in_place)
    return Saved(Rows(*map(outs.get, Rows._fields)), outs["tables"])  # type: ignore[arg-type]


def _triton_backward(p: Problem, x: Operands, saved: Saved, grad_loss: Array, grad_lse: Array) -> Gradients:
    _compile(p, x, backward=True)
    ins = _named(x) | _named(saved.rows)
    ins |= {"grad_loss": grad_loss, "grad_lse": grad_lse} | ({} if saved.tables is None else {"tables": saved.tables})
    if p.wanted.items:
        assert saved.tables is not None
        keys = _table(saved.tables, "positive_key", p, _num_keys(p)) if x.positions is None else x.positions
        ins["sorted_keys"], ins["sorted_rows"] = _stable_sort(keys)
        if p.sorts_draws and x.ids is not None:
            ins["sorted_ids"], ins["sorted_draws"] = _stable_sort(_draw_keys(x.ids, x.target, p))
    in_place = {"average": "input_grad"} if p.wanted.input else {}
    outs = call(_launch_backward, _shapes(backward_buffers(p)), ins, p, in_place=in_place)
    return Gradients(*map(outs.get, ("input_grad", "item_grad", "bias_grad", "scale_grad")))


def _reference_forward(p: Problem, table_size: int, x: Operands) -> Saved:
    tables = as_varying(jnp.zeros(table_size, jnp.int32), varying_axes(x)) if table_size else None
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
