"""One update of the rows of a table that a step touches: by the kernel, or in plain JAX."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import call, local_gpus
from ...kernels.draws.rounding import rounding_bits
from ...kernels.plan.row_update import RowRule, RowUpdate
from ..loss.candidates import arithmetic

_LOWER_HALF = 0xFFFF  # of a float32, which a bfloat16 does not have


def update_rows(
    weight: Array, first: Array | None, second: Array, ids: Array, count: Array, grad: Array, rate: Array, step: Array,
    seed: Array | None, rule: RowRule, impl: str,
) -> tuple[Array, Array | None, Array]:  # fmt: skip
    """``weight``, ``first`` and ``second`` with the first ``count`` rows ``ids`` moved; in their memory, where it is
    of no further use.

    weight (V, D) float32 or bfloat16; first (V, D) and second (V,) or (V, D) float32, as `RowRule` has them; ids (T,)
    int32, count (1,) int32; grad (T, D); rate (1,) float32; step (1,) int32, the number of this update, from 1; seed
    (2,) int32 words (low, high), by which a bfloat16 weight is rounded at random, None to round to the nearest.
    """
    if not len(ids):
        return weight, first, second
    num_items, dim = weight.shape
    plan = RowUpdate(rule, len(ids), num_items, dim, weight.dtype.name, seed is not None)
    operands = weight, first, second, ids, count, grad, rate, step, seed
    plain, by_kernel = partial(_by_reference, rule=rule), partial(_by_kernel, plan=plan)
    if impl == "reference":
        return plain(*operands)
    if impl == "triton":
        return by_kernel(*operands)
    return jax.lax.platform_dependent(*operands, cuda=by_kernel, default=plain)


def _launch(outs: dict[str, Any], ins: dict[str, Any], plan: RowUpdate) -> None:
    from ...kernels.launch.row_update import launch_row_update

    launch_row_update(outs, {name: each for name, each in ins.items() if not name.startswith("old_")}, plan)


def _by_kernel(
    weight: Array, first: Array | None, second: Array, ids: Array, count: Array, grad: Array, rate: Array, step: Array,
    seed: Array | None, *, plan: RowUpdate,
) -> tuple[Array, Array | None, Array]:  # fmt: skip
    tables = {"weight": weight, "second": second} | ({} if first is None else {"first": first})
    ins = {"ids": ids, "count": count, "grad": grad, "rate": rate, "step": step}
    ins |= {} if seed is None else {"seed": seed}
    if gpus := local_gpus():
        from ...kernels.launch.row_update import compile_kernels

        for gpu in gpus:
            dtypes = {name: str(each.dtype) for name, each in {**tables, **ins}.items()}
            compile_kernels(plan, tuple(dtypes.items()), gpu)
    outs = {name: jax.ShapeDtypeStruct(table.shape, table.dtype) for name, table in tables.items()}
    old = {f"old_{name}": table for name, table in tables.items()}
    moved = call(_launch, outs, {**ins, **old}, plan, {f"old_{name}": name for name in tables})
    return moved["weight"], moved.get("first"), moved["second"]


def _by_reference(
    weight: Array, first: Array | None, second: Array, ids: Array, count: Array, grad: Array, rate: Array, step: Array,
    seed: Array | None, *, rule: RowRule,
) -> tuple[Array, Array | None, Array]:  # fmt: skip
    # Places behind the last row do what it does: the same numbers are written to it again.
    place = jnp.clip(jnp.minimum(jnp.arange(len(ids)), count - 1), 0)
    row = ids[place]
    grad, known = grad[place].astype(jnp.float32), second[row]
    mean_square = jnp.square(grad).mean(1)

    def put(table: Array, rows: Array) -> Array:
        has_rows = (count > 0).reshape(-1, *[1] * (rows.ndim - 1))
        return table.at[row].set(jnp.where(has_rows, rows.astype(table.dtype), table[row]))

    if rule.rule == "rowwise_adagrad":
        known = known + mean_square
        move = grad * (rate / (jnp.sqrt(known) + rule.eps))[:, None]
    else:
        assert first is not None
        left_1, left_2 = _left(step, rule.beta1), _left(step, rule.beta2)
        moment = rule.beta1 * first[row] + (1 - rule.beta1) * grad
        squares = mean_square if rule.rule == "partial_rowwise_adam" else jnp.square(grad)
        known = rule.beta2 * known + (1 - rule.beta2) * squares
        if rule.rule == "partial_rowwise_adam":
            move = moment * (rate / left_1 / (jnp.sqrt(known / left_2) + rule.eps))[:, None]
        else:
            move = moment * (rate * jnp.sqrt(left_2) / left_1) / (jnp.sqrt(known) + rule.eps)
        first = put(first, moment)
    moved = weight[row].astype(jnp.float32) * (1 - rate * rule.weight_decay) - move
    if weight.dtype == jnp.bfloat16 and seed is not None:
        moved = _upper_halves(moved, row, step, seed)
    return put(weight, moved), first, put(second, known)


def _left(step: Array, beta: float) -> Array:
    """1 - beta^step (1,)."""
    return -jnp.expm1(step * math.log(beta)) if beta else jnp.ones(step.shape, jnp.float32)


def _upper_halves(x: Array, row: Array, step: Array, seed: Array) -> Array:
    """fp32 numbers that a bfloat16 holds, at random by ``seed``."""
    low, high = jax.lax.bitcast_convert_type(seed, jnp.uint32)
    step = jax.lax.bitcast_convert_type(step, jnp.uint32)
    bits = rounding_bits(arithmetic(), (high[None], low[None]), step, row, jnp.arange(x.shape[1]))
    word = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((word + bits) & jnp.uint32(~_LOWER_HALF & 0xFFFFFFFF), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x)
