"""The rows of a shard of a catalog that a step of all shards touches, and what a shard's inputs embed of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from ...interop import as_varying, own_settings, varying_axes
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED, Spec, check_own_log_q
from ...kernels.negatives.base import Negatives
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.plan.group_draw import GroupDraw, ListDraw, plan_group_draw
from ...kernels.plan.problem import ELSEWHERE
from ..loss.arguments import as_int32, check_own_history, home_of, placed
from ..loss.catalog_shard import CatalogShard
from ..loss.exchange import all_gather, exchanged
from ..loss.gathered_rows import folded_words, manual_axes, owners, places_in, target_places
from ..loss.list_operands import Tables, list_operands, of_shard, row_log_weights
from ..loss.seeds import as_seed, seed_words
from ..loss.sharded import own_sampler, shard_tables
from ..loss.working_set import WorkingSet
from .step_rows import found_rows

MORE_ROWS = 1024  # of a shard than twice its mean, where few rows are spread unevenly


def checked_own_catalog(catalog: object, num_items: int) -> CatalogShard | None:
    """The catalog where devices share it; None where one has all of it."""
    if catalog is None:
        return None
    if not isinstance(catalog, CatalogShard):
        raise ArgumentTypeError("catalog", "a CatalogShard or None", type(catalog).__name__)
    if catalog.num_items != num_items:
        raise ArgumentValueError("num_items", f"{catalog.num_items}, the catalog's", num_items)
    return None if len(catalog.shards()) == 1 else catalog


def shard_working_set(
    negatives: Sampler, target: Any, seed: ArrayLike, inputs: Any, ignore_index: int, history: History | None,
    log_q: Any, catalog: CatalogShard, impl: str,
) -> WorkingSet:  # fmt: skip
    """The working set of this shard, of all shards' rows."""
    shards = catalog.shards()
    own = [own_sampler(negatives, shard) for shard in shards]
    size, num_rows = catalog.rows(len(shards)), len(shards) * int(np.size(target))
    check_own_log_q(negatives, None if log_q is None else Spec(tuple(log_q.shape), str(log_q.dtype)), size)
    check_own_history(history, target, ignore_index, size)
    plans = [plan_group_draw(each, num_rows, shard.size, IGNORED) for shard, each in zip(shards, own, strict=True)]
    kinds = tuple(_Kind(plan, own[plans.index(plan)]) for plan in dict.fromkeys(plans))
    kind_of = tuple(list(dict.fromkeys(plans)).index(plan) for plan in plans)
    num_drawn = max(plan.num_drawn for plan in plans)
    bound = num_drawn + 2 * (int(np.size(target)) + (0 if inputs is None else int(np.size(inputs)))) + MORE_ROWS
    arrays = placed({"target": target, "inputs": inputs, "seed": as_seed(seed), "log_q": log_q, "history": history})
    tables = shard_tables(negatives, shards, own[0].draw(size), home_of(arrays))
    static = _Static(negatives, kinds, kind_of, catalog, ignore_index, min(bound, size), impl)
    return _working_set(arrays, tables, static)


@dataclass(frozen=True)
class _Kind:
    """A shard's draw, and the sampler of the first one that draws so."""

    plan: GroupDraw | ListDraw
    sampler: Negatives


@dataclass(frozen=True)
class _Static:
    """What is static in a call: the ``kinds`` of shards, and ``kind_of`` each of them."""

    negatives: Sampler
    kinds: tuple[_Kind, ...]
    kind_of: tuple[int, ...]
    catalog: CatalogShard
    ignore_index: int
    bound: int
    impl: str


class _Own(NamedTuple):
    """What a shard has of its own, in shapes that all shards have."""

    ids: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    target: Array
    inputs: Array | None
    drawn: Array | None
    positions: Array | None
    log_weight: Array | None
    whole: Array | None


@partial(jax.jit, static_argnums=2)
def _working_set(arrays: dict[str, Any], tables: Tables, static: _Static) -> WorkingSet:
    catalog, axis, ignore_index = static.catalog, static.catalog.axis_name, static.ignore_index
    with own_settings():
        words, log_q = seed_words(arrays["seed"]), arrays["log_q"]
        history = None if arrays["history"] is None else History(*map(as_int32, arrays["history"]))
        given: Any = as_int32(arrays["target"]), None if arrays["inputs"] is None else as_int32(arrays["inputs"])
        given = as_varying((*given, words, log_q, history), varying_axes(given) | manual_axes(axis))
        target, inputs, words, log_q, history = given
        flat = target.reshape(-1)
        counts = flat != ignore_index
        every = target_places(flat, counts, catalog)
        if history is not None:
            history = history._replace(users=all_gather(history.users.reshape(-1), axis))
        of_all = None
        if inputs is not None:
            of_all = all_gather(inputs[None], axis)
            is_item = (of_all >= 0) & (of_all < catalog.num_items)
            of_all = jnp.where(is_item, places_in(of_all, catalog, -1), -1)
        words, index = folded_words(words, catalog), jax.lax.axis_index(axis)
        tables = Tables(*(None if table is None else table[index] for table in tables))
        branches = [partial(_own_rows, kind, static, history is not None) for kind in static.kinds]
        operands = every, of_all, words, tables, log_q
        kind = jnp.asarray(static.kind_of)[index]
        found = jax.lax.switch(kind, branches, operands) if len(branches) > 1 else branches[0](operands)
        return WorkingSet(
            ids=found.ids,
            count=found.count,
            target=owners(flat, counts, catalog).reshape(target.shape),
            inputs=found.inputs,
            drawn=found.drawn,
            positions=found.positions,
            log_weight=found.log_weight,
            history=history,
            history_weight=found.whole,
            seed=jax.lax.bitcast_convert_type(words[::-1], jnp.uint32),
            gathered=jnp.where(every == ELSEWHERE, ELSEWHERE, found.target),
            sampler=static.negatives,
            num_items=catalog.rows(len(static.kind_of)),
            ignore_index=ignore_index,
        )


def _own_rows(kind: _Kind, static: _Static, has_history: bool, operands: Any) -> _Own:
    """What a shard of this kind finds, filled up to the shapes of the largest."""
    every, of_all, words, tables, log_q = operands
    plan, sampler, size = kind.plan, kind.sampler, kind.plan.num_items
    slot_ends, known = tables
    tables = Tables(
        None if slot_ends is None else slot_ends[:, :size].reshape(-1), None if known is None else known[:size]
    )
    found = found_rows(every, of_all, words, tables.slot_ends, plan, static.bound, static.impl)
    ids, whole = found.rows.ids, None
    if log_q is None:
        log_weight, whole = row_log_weights(tables, ids, sampler, size, None, has_history)
    else:
        _, whole = list_operands(tables, sampler.draw(size).batch_share, size, log_q[:size])
        whole = of_shard(whole)
        log_weight = whole[ids]
    plans = [each.plan for each in static.kinds]
    drawn = found.drawn
    if drawn is not None and drawn.ndim == 2:
        most = max(each.columns for each in plans if isinstance(each, ListDraw))
        drawn = _filled(drawn, most, -1)
    elif drawn is not None:
        drawn = _filled(drawn, len(drawn) + max(each.num_drawn for each in plans) - plan.num_drawn, -1)
    if whole is not None:
        whole = _filled(whole, max(each.num_items for each in plans), 0) if has_history else None
    return _Own(ids, found.rows.count, found.target, found.inputs, drawn, found.positions, log_weight, whole)


def _filled(array: Array, size: int, value: float) -> Array:
    """``array`` with a last axis of ``size``."""
    rest = size - array.shape[-1]
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, rest)], constant_values=value) if rest else array


def input_rows(rows: Array, working_set: WorkingSet, *, catalog: CatalogShard, dtype: DTypeLike | None = None) -> Array:
    """(..., D) what this shard's inputs embed, zeros of negative ones, from all shards' ``rows`` (T, D) of their
    working sets; differentiable.

    ``dtype``: that of the result, in which rows and their gradients cross the network; by default the rows'. bfloat16
    is half of float32's bytes.

    Raises ArgumentTypeError or ArgumentValueError for a working set without inputs, or made without the ``catalog``,
    and for rows that are not its own.
    """
    if not isinstance(catalog, CatalogShard):
        raise ArgumentTypeError("catalog", "a CatalogShard", type(catalog).__name__)
    places, is_shared = working_set.inputs, len(catalog.shards()) > 1
    if places is None or (working_set.gathered is not None) != is_shared:
        got = "one without inputs" if places is None else "one of another"
        raise ArgumentValueError("working_set", "one with inputs, made with the catalog", got)
    if rows.ndim != 2 or len(rows) != len(working_set.ids):
        raise ArgumentValueError("rows", f"shape ({len(working_set.ids)}, D)", rows.shape)
    # out-of-range places read 0, and their gradients go to no row; what a working set had no room for is NaN
    own = rows.at[jnp.where(places >= 0, places, len(rows))].get(mode="fill", fill_value=0)
    own = jnp.where((places < len(rows))[..., None], own, jnp.nan)
    if dtype is not None:
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ArgumentTypeError("dtype", "a floating dtype or None", str(dtype))
        own = own.astype(dtype)
    return exchanged(own, catalog.axis_name).sum(0) if is_shared else own  # a sum of which one is not zero
