"""The working set of a step: the rows of a catalog that it reads, known before anything is computed."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...interop import call, local_gpus, own_settings
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED
from ...kernels.negatives.arguments import check_ignore_index as check_64_bits
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_index
from ...kernels.plan.group_draw import GroupDraw, plan_group_draw
from ...kernels.plan.problem import NO_ID
from ...kernels.plan.row_set import DrawnRows
from ..loss.arguments import as_int32, check_ignore_index, check_impl, is_array, is_known, placed
from ..loss.candidates import arithmetic
from ..loss.seeds import as_seed, seed_words
from ..loss.working_set import WorkingSet
from .row_set import row_set


def working_set(
    negatives: Sampler,
    target: ArrayLike,
    *,
    num_items: int,
    seed: ArrayLike,
    inputs: ArrayLike | None = None,
    ignore_index: int = -100,
    impl: str = "auto",
) -> WorkingSet:
    """The rows that a step with these negatives, targets and inputs reads of a table of ``num_items``.

        ws = working_set(negatives, target, num_items=V, seed=seed, inputs=inputs)
        rows = rows_of(table, ws)                      # (T, D), or any function of ws.ids
        hidden = encoder(rows, ws.inputs)              # what it embeds, by place
        loss = sampled_linear_cross_entropy(hidden, rows, ws.target, ws)

    The draw is that of ``sampled_linear_cross_entropy`` on the whole table with the same ``seed``, and loss and lse
    have the same bits; nothing of the catalog's size is made. T is the number of drawn places, targets and inputs
    together, or ``num_items`` if that is less.

    Args:
        negatives: ``UniformNegatives`` that groups of rows share.
        target: (...) integer items in [0, V), or ``ignore_index``.
        num_items: V.
        seed: as of the loss, which takes none beside a working set.
        inputs: integer items of any shape that the step embeds; negative ones name no row and stay as they are.
        ignore_index: target of rows to leave out; the loss must be given the same.
        impl: "triton", "reference", or "auto": decided when the call is lowered, triton on CUDA.

    Raises ArgumentTypeError or ArgumentValueError, naming the argument: for draws of more than half the catalog, of
    which a working set would save nothing, and for negatives of single rows. For arrays in the host's memory and
    outside jit also for items that there are not; elsewhere such a target makes its row NaN.
    """
    num_items = as_index("num_items", num_items)
    check_64_bits(ignore_index)
    check_ignore_index(ignore_index)
    for name, ids in (("target", target), ("inputs", inputs)):
        if ids is not None and not (is_array(ids) and jnp.issubdtype(ids.dtype, jnp.integer)):
            raise ArgumentTypeError(name, "an array of integers", str(getattr(ids, "dtype", type(ids).__name__)))
    check_impl(impl, target)
    plan = plan_group_draw(negatives, int(np.size(target)), num_items, ignore_index)
    _check_ranges("target", target, num_items, ignore_index, f"{ignore_index}, the ignore_index, or ")
    _check_ranges("inputs", inputs, num_items, None, "a negative number or ")
    arrays = placed({"target": target, "inputs": inputs, "seed": as_seed(seed)})
    return _working_set(arrays, negatives, plan, impl)


def _check_ranges(name: str, ids: Any, num_items: int, ignored: int | None, other: str) -> None:
    if ids is None or not is_known(ids):
        return
    values = np.asarray(ids).reshape(-1)
    checked = values[values >= 0 if ignored is None else values != ignored]
    wrong = checked[(checked < 0) | (checked >= num_items)]
    if wrong.size:
        raise ArgumentValueError(name, f"{other}an item in [0, {num_items})", int(wrong[0]))


@partial(jax.jit, static_argnums=(1, 2, 3))
def _working_set(arrays: dict[str, Any], negatives: Sampler, plan: GroupDraw, impl: str) -> WorkingSet:
    with own_settings():
        target = as_int32(arrays["target"])
        inputs = None if arrays["inputs"] is None else as_int32(arrays["inputs"])
        words = seed_words(arrays["seed"])
        flat, num_items = jnp.reshape(target, -1), plan.draws.num_items
        drawn = _drawn(flat, words, plan, impl)
        is_item = (flat != plan.ignore_index) & (flat >= 0) & (flat < num_items)
        parts = [drawn, jnp.where(is_item, flat, -1)]
        if inputs is not None:
            parts.append(jnp.where(inputs < num_items, inputs, -1).reshape(-1))
        every = jnp.concatenate(parts)
        chosen = row_set(every, min(len(every), num_items), impl=impl)
        rows = DrawnRows(plan, len(chosen.ids))
        kernels, plain = partial(_describe_by_kernels, plan=rows), partial(_describe_by_reference, plan=rows)
        if impl == "auto":
            found = jax.lax.platform_dependent(flat, chosen.places, cuda=kernels, default=plain)
        else:
            found = (kernels if impl == "triton" else plain)(flat, chosen.places)
        behind = plan.num_drawn + plan.num_rows
        return WorkingSet(
            ids=chosen.ids,
            count=chosen.count,
            target=found[1].reshape(target.shape),
            inputs=None if inputs is None else chosen.places[behind:].reshape(inputs.shape),
            drawn=found[0],
            positions=found[2],
            seed=jax.lax.bitcast_convert_type(words[::-1], jnp.uint32),
            sampler=negatives,
            num_items=num_items,
            ignore_index=plan.ignore_index,
        )


def _describe_by_reference(target: Array, places: Array, *, plan: DrawnRows) -> tuple[Array, Array, Array]:
    """``drawn``, the targets' places and ``positions``, by the ``places`` of draws and targets."""
    draw, total = plan.draw, plan.num_places
    num_drawn = draw.num_drawn
    drawn, own = places[:num_drawn], places[num_drawn:][: draw.num_rows]
    is_item = (target != draw.ignore_index) & (target >= 0) & (target < draw.draws.num_items)
    # each row is drawn once at most: by which place
    drawn_at = jnp.full(total, -1, jnp.int32)
    drawn_at = drawn_at.at[jnp.where(drawn >= 0, drawn, total)].set(jnp.arange(num_drawn, dtype=jnp.int32), mode="drop")
    alone = jnp.where(drawn_at >= 0, -1, jnp.arange(total, dtype=jnp.int32))
    at = drawn_at[jnp.maximum(own, 0)]
    positions = jnp.where(is_item, jnp.where(at >= 0, at, own + num_drawn), NO_ID)
    # what is no item is none of the rows either
    other = jnp.where(target == draw.ignore_index, IGNORED, total)
    return jnp.concatenate([drawn, alone]), jnp.where(is_item, own, other), positions


def _launch_rows(outs: Any, ins: Any, plan: DrawnRows) -> None:
    from ...kernels.launch.row_set import launch_drawn_rows

    launch_drawn_rows(outs, ins, plan)


def _describe_by_kernels(target: Array, places: Array, *, plan: DrawnRows) -> tuple[Array, Array, Array]:
    for gpu in local_gpus():
        from ...kernels.launch.row_set import compile_drawn_rows

        compile_drawn_rows(plan, gpu)
    shapes = {each.name: jax.ShapeDtypeStruct(each.shape, each.dtype) for each in plan.buffers}
    outs = call(_launch_rows, shapes, {"target": target, "places": places}, plan)
    return outs["drawn"], outs["target_places"], outs["positions"]


def _drawn(target: Array, words: Array, plan: GroupDraw, impl: str) -> Array:
    kernels, plain = partial(_by_kernels, plan=plan), partial(_by_reference, plan=plan)
    if impl == "auto":
        return jax.lax.platform_dependent(target, words, cuda=kernels, default=plain)
    return (kernels if impl == "triton" else plain)(target, words)


def _launch(outs: Any, ins: Any, plan: GroupDraw) -> None:
    from ...kernels.launch.group_draw import launch_group_draw

    launch_group_draw(outs, ins, plan)


def _by_kernels(target: Array, words: Array, *, plan: GroupDraw) -> Array:
    for gpu in local_gpus():
        from ...kernels.launch.group_draw import compile_kernels

        compile_kernels(plan, str(target.dtype), gpu)
    outs = {each.name: jax.ShapeDtypeStruct(each.shape, each.dtype) for each in plan.buffers}
    return call(_launch, outs, {"target": target, "seed": words}, plan)["drawn"]


def _by_reference(target: Array, words: Array, *, plan: GroupDraw) -> Array:
    low, high = jax.lax.bitcast_convert_type(words, jnp.uint32)
    groups = jnp.arange(plan.num_groups, dtype=jnp.int32)
    items = plan.draws.items(arithmetic(), (high, low), groups).astype(jnp.int32)
    has_rows = groups * plan.draws.group_size < (target != plan.ignore_index).sum()
    missing = plan.num_drawn // plan.num_groups - plan.draws.negatives
    items = jnp.pad(jnp.where(has_rows[:, None], items, -1), ((0, 0), (0, missing)), constant_values=-1)
    return items.reshape(-1)
