"""The loss's rows under JAX's transformations.

``rows`` is a primitive, so that vmap meets it before grad does: mapped rows become more rows of one call,
whose gradient of the shared table is then computed once. Its derivative is a second primitive, whose transpose is
``ops.backward``: only reverse mode has one. Where vmap comes outside grad, ``ops.forward`` and ``ops.backward`` are
what is mapped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ...interop import own_settings
from ...kernels.errors import ArgumentValueError
from ...kernels.plan.problem import Wanted
from . import ops
from .operands import Gradients, Operands
from .ops import Options, Saved
from .sums import sum_of_rows

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


def _fold(x: Operands, mapped: Operands, size: int, options: Options) -> Operands:
    """``x``, whose mapped arrays have the mapped axis first, as one call on ``size`` times as many rows."""
    for name, argument in UNMAPPED.items():
        if getattr(mapped, name):
            raise ArgumentValueError(
                argument,
                "an array shared by the mapped rows (vmap may map input, target, negatives and sample_weight)",
                "a mapped array",
            )
    if options.draw is not None and options.draw.catalog:
        raise ArgumentValueError("negatives", "a sampler or ids under vmap", "a working set")
    num_rows = x.target.shape[-1]

    def fold(array: Array, is_mapped: bool, row_shape: tuple[int, ...]) -> Array:
        every = array if is_mapped else array[None]
        if every.ndim == len(row_shape) + 1:  # ids shared by the rows of each mapped call
            every = jnp.broadcast_to(every[:, None], (len(every), num_rows, *row_shape))
        return jnp.broadcast_to(every, (size, *every.shape[1:])).reshape(-1, *row_shape)

    ids = x.ids
    if ids is not None and (mapped.ids or ids.ndim == 2):
        ids = fold(ids, bool(mapped.ids), (ids.shape[-1],))
    return x._replace(
        input=fold(x.input, bool(mapped.input), x.input.shape[-1:]),
        target=fold(x.target, bool(mapped.target), ()),
        ids=ids,
        users=None if x.users is None else fold(x.users, bool(mapped.users), ()),
    )


def _unfold(array: Array, size: int) -> Array:
    return array.reshape(size, len(array) // size, *array.shape[1:])


def _fold_rows(rows: Any, mapped: Any, size: int) -> Any:
    """A pytree of values of each row, (N, ...) or mapped (size, N, ...), as (size * N, ...)."""

    def fold(array: Array, is_mapped: bool) -> Array:
        every = array if is_mapped else jnp.broadcast_to(array, (size, *array.shape))
        return every.reshape(-1, *every.shape[2:])

    return jax.tree.map(fold, rows, mapped)


def _refuse_derivative(*_: Any) -> NoReturn:
    raise NotImplementedError(
        "cce_minus: the loss has no second derivatives; differentiate its gradient by another method"
    )


def _without_derivative(function: Callable[..., Any]) -> Callable[..., Any]:
    guarded = jax.custom_jvp(function)
    guarded.defjvp(_refuse_derivative)
    return guarded


@functools.cache
def _forward(options: Options) -> Callable[[Operands], Saved]:
    @custom_vmap
    def forward(x: Operands) -> Saved:
        return ops.forward(x, options)

    @forward.def_vmap
    @own_settings()
    def _(size: int, mapped: list[Any], x: Operands) -> tuple[Saved, Saved]:
        saved = forward(_fold(x, mapped[0], size, options))
        rows = jax.tree.map(lambda a: _unfold(a, size), saved.rows)
        is_mapped = jax.tree.map(lambda _: True, rows), jax.tree.map(lambda _: False, saved.tables)
        return Saved(rows, saved.tables), Saved(*is_mapped)  # type: ignore[arg-type]

    return _without_derivative(forward)


@functools.cache
def _backward(options: Options) -> Callable[[Operands, Saved, Array, Array], Gradients]:
    @custom_vmap
    def backward(x: Operands, saved: Saved, grad_loss: Array, grad_lse: Array) -> Gradients:
        return ops.backward(x, saved, grad_loss, grad_lse, options)

    @backward.def_vmap
    @own_settings()
    def _(size: int, mapped: list[Any], x: Operands, saved: Saved, *grads: Array) -> tuple[Gradients, Gradients]:
        x_mapped, saved_mapped, *grads_mapped = mapped
        if (
            not saved_mapped.rows.loss
        ):  # only upstream gradients are mapped, as in a Jacobian: each is a backward of its own
            every = [
                g if m else jnp.broadcast_to(g, (size, *g.shape)) for g, m in zip(grads, grads_mapped, strict=True)
            ]
            gradients = jax.lax.map(lambda each: backward(x, saved, *each), every)
            return gradients, jax.tree.map(lambda _: True, gradients)
        x = _fold(x, x_mapped, size, options)
        saved = saved._replace(rows=_fold_rows(saved.rows, saved_mapped.rows, size))
        grads = tuple(_fold_rows(list(grads), grads_mapped, size))
        every = backward(x, saved, *grads)
        call_of_row = jnp.arange(len(grads[0])) // (len(grads[0]) // size)

        def of_table(index: Array) -> tuple[Array | None, Array | None]:
            """The table's gradient of one mapped call; its rows' draws depend on all the others'."""
            own = backward(x, saved, *(jnp.where(call_of_row == index, grad, 0.0) for grad in grads))
            return own.weight, own.bias

        weight, bias = jax.lax.map(of_table, jnp.arange(size)) if options.wanted.items else (None, None)
        of_rows = jax.tree.map(lambda a: _unfold(a, size), (every.input, every.scale))
        gradients = Gradients(of_rows[0], weight, bias, of_rows[1])
        return gradients, jax.tree.map(lambda _: True, gradients)

    return _without_derivative(backward)


_rows_p = Primitive("cce_minus_rows")
_rows_p.multiple_results = True


def rows(x: Operands, options: Options) -> tuple[Array, Array]:
    """The loss and lse (N,) fp32 of rows, differentiable once in input, weight, bias and, with scale_grad, scale."""
    leaves, tree = jax.tree.flatten(x)
    loss, lse = _rows_p.bind(*leaves, tree=tree, options=options)
    return loss, lse


def _evaluate(*leaves: Array, tree: Any, options: Options) -> list[Array]:
    saved = _forward(options)(jax.tree.unflatten(tree, leaves)).rows
    return [saved.loss, saved.lse]


_rows_p.def_impl(_evaluate)
mlir.register_lowering(_rows_p, mlir.lower_fun(_evaluate, multiple_results=True))


@_rows_p.def_abstract_eval
def _(*leaves: Any, tree: Any, options: Options) -> list[Any]:
    target = jax.tree.unflatten(tree, leaves).target
    return [target.update(dtype=jnp.dtype("float32"), weak_type=False)] * 2


def _derivative(
    primals: Sequence[Array], tangents: Sequence[Any], *, tree: Any, options: Options
) -> tuple[list[Array], list[Array]]:
    x = jax.tree.unflatten(tree, primals)
    known = jax.tree.unflatten(tree, [None if isinstance(tangent, ad.Zero) else tangent for tangent in tangents])
    moving = {name: getattr(known, name) for name in Wanted._fields if getattr(known, name) is not None}
    saved = _forward(options)(x)
    residuals, residual_tree = jax.tree.flatten((x, saved))
    moved = _tangents_p.bind(
        *moving.values(), *residuals, names=tuple(moving), tree=residual_tree, options=options
    )  # fmt: skip
    return [saved.rows.loss, saved.rows.lse], moved


ad.primitive_jvps[_rows_p] = _derivative

# The rows' tangents, linear in those of the operands ``names``: only ever transposed.
_tangents_p = Primitive("cce_minus_row_tangents")
_tangents_p.multiple_results = True


def _refuse_forward_mode(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("cce_minus: the loss has no forward mode (jvp, jacfwd); use grad, vjp or jacrev")


_tangents_p.def_impl(_refuse_forward_mode)
mlir.register_lowering(_tangents_p, _refuse_forward_mode)
batching.primitive_batchers[_tangents_p] = _refuse_forward_mode
ad.primitive_jvps[_tangents_p] = _refuse_forward_mode


@_tangents_p.def_abstract_eval
def _(*values: Any, names: tuple[str, ...], tree: Any, options: Options) -> list[Any]:
    _, saved = jax.tree.unflatten(tree, values[len(names) :])
    return [saved.rows.loss, saved.rows.lse]


def _transpose(
    cotangents: Sequence[Any], *values: Any, names: tuple[str, ...], tree: Any, options: Options
) -> list[Array | None]:
    residuals = values[len(names) :]
    x, saved = jax.tree.unflatten(tree, residuals)
    options = replace(options, wanted=Wanted(*(name in names for name in Wanted._fields)))
    with own_settings():
        gradients = _backward(options)(x, saved, *map(ad.instantiate_zeros, cotangents))
        if gradients.scale is not None:
            gradients = gradients._replace(scale=sum_of_rows(gradients.scale)[None])
    return [getattr(gradients, name) for name in names] + [None] * len(residuals)


ad.primitive_transposes[_tangents_p] = _transpose


@own_settings()
def _batch(
    leaves: Sequence[Array], axes: Sequence[int | None], *, tree: Any, options: Options
) -> tuple[list[Array], list[int]]:
    (size,) = {leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None}
    first = [leaf if axis is None else jnp.moveaxis(leaf, axis, 0) for leaf, axis in zip(leaves, axes, strict=True)]
    mapped = jax.tree.unflatten(tree, [axis is not None for axis in axes])
    loss, lse = rows(_fold(jax.tree.unflatten(tree, first), mapped, size, options), options)
    return [_unfold(loss, size), _unfold(lse, size)], [0, 0]


batching.primitive_batchers[_rows_p] = _batch
