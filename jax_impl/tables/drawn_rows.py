"""The rows of a working set that groups draw, and where its targets are among them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import call, local_gpus
from ...kernels.negatives.arguments import IGNORED
from ...kernels.plan.group_draw import GroupDraw
from ...kernels.plan.row_set import NO_ROW, DrawnRows


def drawn_rows(target: Array, places: Array, total: int, plan: GroupDraw, impl: str) -> tuple[Array, Array, Array]:
    """``drawn`` (D + T,), the targets' places (N,) and ``positions`` (N,) of a `WorkingSet` of ``total`` rows, by the
    ``places`` of draws, then of the flat ``target`` (N,)."""
    rows = DrawnRows(plan, total)
    kernels, plain = partial(_by_kernels, plan=rows), partial(_by_reference, plan=rows)
    if impl == "auto":
        return jax.lax.platform_dependent(target, places, cuda=kernels, default=plain)
    return (kernels if impl == "triton" else plain)(target, places)


def _by_reference(target: Array, places: Array, *, plan: DrawnRows) -> tuple[Array, Array, Array]:
    draw, total = plan.draw, plan.num_places
    num_drawn = draw.num_drawn
    drawn, own = places[:num_drawn], places[num_drawn:][: draw.num_rows]
    is_item = (target != draw.ignore_index) & (target >= 0) & (target < draw.num_items)
    # each row is drawn once at most: by which place
    drawn_at = jnp.full(total, -1, jnp.int32)
    drawn_at = drawn_at.at[jnp.where(drawn >= 0, drawn, total)].set(jnp.arange(num_drawn, dtype=jnp.int32), mode="drop")
    alone = jnp.where(drawn_at >= 0, -1, jnp.arange(total, dtype=jnp.int32))
    at = drawn_at[jnp.maximum(own, 0)]
    positions = jnp.where(is_item, jnp.where(at >= 0, at, own + num_drawn), NO_ROW)
    # what is no item is none of the rows either
    other = jnp.where(target == draw.ignore_index, IGNORED, total)
    return jnp.concatenate([drawn, alone]), jnp.where(is_item, own, other), positions


def _launch(outs: Any, ins: Any, plan: DrawnRows) -> None:
    from ...kernels.launch.row_set import launch_drawn_rows

    launch_drawn_rows(outs, ins, plan)


def _by_kernels(target: Array, places: Array, *, plan: DrawnRows) -> tuple[Array, Array, Array]:
    for gpu in local_gpus():
        from ...kernels.launch.row_set import compile_drawn_rows

        compile_drawn_rows(plan, gpu)
    shapes = {each.name: jax.ShapeDtypeStruct(each.shape, each.dtype) for each in plan.buffers}
    outs = call(_launch, shapes, {"target": target, "places": places}, plan)
    return outs["drawn"], outs["target_places"], outs["positions"]
