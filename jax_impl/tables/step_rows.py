"""The rows of a table that a step's draw, targets and inputs name, and where among them each of these is."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import call, local_gpus, varying_axes
from ...kernels.negatives.arguments import IGNORED
from ...kernels.plan.group_draw import GroupDraw, ListDraw
from ..loss.candidates import arithmetic, layout_of
from ..loss.operands import Operands
from .drawn_rows import drawn_rows
from .row_set import RowSet, row_set


class Found(NamedTuple):
    """The rows of a step, and what a `WorkingSet` says of them, targets flat."""

    rows: RowSet
    target: Array
    inputs: Array | None
    drawn: Array | None
    positions: Array | None


def found_rows(
    flat: Array, inputs: Array | None, words: Array, slot_ends: Array | None, plan: GroupDraw | ListDraw, bound: int,
    impl: str,
) -> Found:  # fmt: skip
    """The rows that a step's draw, by ``words`` of a seed, its ``flat`` targets (N,) and its inputs name, at most
    ``bound``."""
    num_items = plan.num_items
    drawn = _drawn(flat, words, slot_ends, plan, impl) if plan.num_drawn else flat[:0]
    is_item = (flat != plan.ignore_index) & (flat >= 0) & (flat < num_items)
    parts = [drawn, jnp.where(is_item, flat, -1)]
    if inputs is not None:
        parts.append(jnp.where(inputs < num_items, inputs, -1).reshape(-1))
    chosen = row_set(jnp.concatenate(parts), bound, impl=impl)
    total, of_drawn = len(chosen.ids), chosen.places[: plan.num_drawn]
    own, of_inputs = jnp.split(chosen.places[plan.num_drawn :], [plan.num_rows])
    if isinstance(plan, ListDraw):
        given, positions = _lists(of_drawn, plan), None
        # what is no item is none of the rows either
        places = jnp.where(is_item, own, jnp.where(flat == plan.ignore_index, IGNORED, total))
    else:
        given, places, positions = drawn_rows(flat, chosen.places, total, plan, impl)
    return Found(chosen, places, None if inputs is None else of_inputs.reshape(inputs.shape), given, positions)


def _lists(places: Array, plan: ListDraw) -> Array | None:
    """The groups' lists of places; None where rows' targets are all there is."""
    if not plan.columns:
        return None
    lists = places.reshape(plan.num_groups, plan.columns)
    return jnp.maximum(lists, 0) if plan.chooses else lists  # scores are taken of every column that is chosen from


def _drawn(target: Array, words: Array, slot_ends: Array | None, plan: GroupDraw | ListDraw, impl: str) -> Array:
    kernels, plain = partial(_by_kernels, plan=plan), partial(_by_reference, plan=plan)
    ins = {"target": target, "seed": words} | ({} if slot_ends is None else {"slot_ends": slot_ends})
    if impl == "auto":
        drawn = jax.lax.platform_dependent(ins, cuda=kernels, default=plain)
    else:
        drawn = (kernels if impl == "triton" else plain)(ins)
    if isinstance(plan, ListDraw):  # those of groups without a row are none
        drawn = drawn.reshape(plan.num_groups, -1)
        first = jnp.arange(plan.num_groups, dtype=jnp.int32)[:, None] * plan.group_size
        drawn = jnp.where(first < (target != plan.ignore_index).sum(), drawn, -1)
    return drawn.reshape(-1)


def _launch(outs: Any, ins: Any, plan: GroupDraw | ListDraw) -> None:
    from ...kernels.launch.group_draw import launch_group_draw

    launch_group_draw(outs, ins, plan)


def _by_kernels(ins: dict[str, Array], *, plan: GroupDraw | ListDraw) -> Array:
    for gpu in local_gpus():
        from ...kernels.launch.group_draw import compile_kernels

        compile_kernels(plan, str(ins["target"].dtype), gpu)
    outs = {each.name: jax.ShapeDtypeStruct(each.shape, each.dtype) for each in plan.buffers}
    name, first = plan.result
    return call(_launch, outs, ins, plan)[name].reshape(-1)[first : first + plan.num_drawn]


def _by_reference(ins: dict[str, Array], *, plan: GroupDraw | ListDraw) -> Array:
    target, words = ins["target"], ins["seed"]
    groups = jnp.arange(plan.num_groups, dtype=jnp.int32)
    if isinstance(plan, ListDraw):
        none = jnp.zeros(0)
        x = Operands(none, none, None, none, target, None, words, slot_ends=ins.get("slot_ends"))
        return layout_of(x, plan.problem).ids(groups).reshape(-1)
    low, high = jax.lax.bitcast_convert_type(words, jnp.uint32)
    items = plan.draws.items(arithmetic(varying_axes(words)), (high, low), groups).astype(jnp.int32)
    has_rows = groups * plan.draws.group_size < (target != plan.ignore_index).sum()
    missing = plan.num_drawn // plan.num_groups - plan.draws.negatives
    items = jnp.pad(jnp.where(has_rows[:, None], items, -1), ((0, 0), (0, missing)), constant_values=-1)
    return items.reshape(-1)
