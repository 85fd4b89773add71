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
from ...kernels.negatives.arguments import IGNORED, Spec, check_own_log_q
from ...kernels.negatives.arguments import check_ignore_index as check_64_bits
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_index
from ...kernels.plan.group_draw import GroupDraw, ListDraw, plan_group_draw
from ..loss.arguments import (
    as_int32,
    check_ignore_index,
    check_impl,
    check_own_history,
    home_of,
    is_array,
    is_known,
    placed,
)
from ..loss.candidates import arithmetic, layout_of
from ..loss.list_operands import Tables, row_log_weights, sampler_tables
from ..loss.operands import Operands
from ..loss.seeds import as_seed, seed_words
from ..loss.working_set import WorkingSet
from .drawn_rows import drawn_rows
from .row_set import row_set


def working_set(
    negatives: Sampler,
    target: ArrayLike,
    *,
    num_items: int,
    seed: ArrayLike,
    inputs: ArrayLike | None = None,
    ignore_index: int = -100,
    history: History | None = None,
    log_q: ArrayLike | None = None,
    impl: str = "auto",
) -> WorkingSet:
    """The rows that a step with these negatives, targets and inputs reads of a table of ``num_items``.

        ws = working_set(negatives, target, num_items=V, seed=seed, inputs=inputs)
        rows = rows_of(table, ws)                      # (T, D), or any function of ws.ids
        hidden = encoder(rows, ws.inputs)              # what it embeds, by place
        loss = sampled_linear_cross_entropy(hidden, rows, ws.target, ws)

    The draw is that of ``sampled_linear_cross_entropy`` on the whole table with the same ``seed``, and loss and lse
    have the same bits; nothing of the catalog's size is made but a sampler's tables of probabilities, once. T is the
    number of drawn places, targets and inputs together, or ``num_items`` if that is less.

    Args:
        negatives: any sampler of part of the catalog but draws of single rows (``group_size`` 1).
        target: (...) integer items in [0, V), or ``ignore_index``.
        num_items: V.
        seed: as of the loss, which takes none beside a working set.
        inputs: integer items of any shape that the step embeds; negative ones name no row and stay as they are.
        ignore_index: target of rows to leave out; the loss must be given the same.
        log_q: (V,) as of the loss, which takes none beside a working set: the log of how often items are targets, where
            in-batch negatives are.
        history: as of the loss, which takes none beside a working set; of items in [0, V). Beside known probabilities
            it needs them of all V items.
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
    if log_q is not None and not is_array(log_q):
        raise ArgumentTypeError("log_q", "an array", type(log_q).__name__)
    check_impl(impl, target)
    plan = plan_group_draw(negatives, int(np.size(target)), num_items, ignore_index)
    check_own_log_q(negatives, None if log_q is None else Spec(tuple(log_q.shape), str(log_q.dtype)), num_items)
    _check_ranges("target", target, num_items, ignore_index, f"{ignore_index}, the ignore_index, or ")
    _check_ranges("inputs", inputs, num_items, None, "a negative number or ")
    check_own_history(history, target, ignore_index, num_items)
    arrays = placed({"target": target, "inputs": inputs, "seed": as_seed(seed), "log_q": log_q, "history": history})
    return _working_set(arrays, sampler_tables(negatives, num_items, home_of(arrays)), negatives, plan, impl)


def _check_ranges(name: str, ids: Any, num_items: int, ignored: int | None, other: str) -> None:
    if ids is None or not is_known(ids):
        return
    values = np.asarray(ids).reshape(-1)
    checked = values[values >= 0 if ignored is None else values != ignored]
    wrong = checked[(checked < 0) | (checked >= num_items)]
    if wrong.size:
        raise ArgumentValueError(name, f"{other}an item in [0, {num_items})", int(wrong[0]))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _working_set(
    arrays: dict[str, Any], tables: Tables, negatives: Sampler, plan: GroupDraw | ListDraw, impl: str
) -> WorkingSet:
    with own_settings():
        target = as_int32(arrays["target"])
        inputs = None if arrays["inputs"] is None else as_int32(arrays["inputs"])
        words = seed_words(arrays["seed"])
        flat, num_items = jnp.reshape(target, -1), plan.num_items
        drawn = _drawn(flat, words, tables.slot_ends, plan, impl) if plan.num_drawn else flat[:0]
        is_item = (flat != plan.ignore_index) & (flat >= 0) & (flat < num_items)
        parts = [drawn, jnp.where(is_item, flat, -1)]
        if inputs is not None:
            parts.append(jnp.where(inputs < num_items, inputs, -1).reshape(-1))
        every = jnp.concatenate(parts)
        chosen = row_set(every, min(len(every), num_items), impl=impl)
        total, of_drawn = len(chosen.ids), chosen.places[: plan.num_drawn]
        own, of_inputs = jnp.split(chosen.places[plan.num_drawn :], [plan.num_rows])
        if isinstance(plan, ListDraw):
            given, positions = _lists(of_drawn, plan), None
            # what is no item is none of the rows either
            places = jnp.where(is_item, own, jnp.where(flat == plan.ignore_index, IGNORED, total))
        else:
            given, places, positions = drawn_rows(flat, chosen.places, total, plan, impl)
        history = arrays["history"]
        log_weights = row_log_weights(tables, chosen.ids, negatives, num_items, arrays["log_q"], history is not None)
        return WorkingSet(
            ids=chosen.ids,
            count=chosen.count,
            target=places.reshape(target.shape),
            inputs=None if inputs is None else of_inputs.reshape(inputs.shape),
            drawn=given,
            positions=positions,
            log_weight=log_weights[0],
            history=None if history is None else History(*map(as_int32, history)),
            history_weight=log_weights[1],
            seed=jax.lax.bitcast_convert_type(words[::-1], jnp.uint32),
            sampler=negatives,
            num_items=num_items,
            ignore_index=plan.ignore_index,
        )


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
    items = plan.draws.items(arithmetic(), (high, low), groups).astype(jnp.int32)
    has_rows = groups * plan.draws.group_size < (target != plan.ignore_index).sum()
    missing = plan.num_drawn // plan.num_groups - plan.draws.negatives
    items = jnp.pad(jnp.where(has_rows[:, None], items, -1), ((0, 0), (0, missing)), constant_values=-1)
    return items.reshape(-1)
