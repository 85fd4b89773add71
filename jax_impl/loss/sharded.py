"""The rows of a loss on a catalog that is sharded over devices: every shard scores all shards' rows against its items.

No gradient of a table crosses the network. Hidden states and targets are gathered; what a shard has of each row, its
target's score and the logsumexp of its negatives, goes to the shard whose row it is, and their gradients go back.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Sharding
from jax.typing import ArrayLike

from ...interop import as_varying, own_settings, varying_axes
from ...kernels.draws.draw import Draw, on_rows
from ...kernels.draws.shard import Shard
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED, Options, check_working_set, correction_of
from ...kernels.negatives.base import Negatives, kept_with_sampler
from ...kernels.negatives.history import History
from ...kernels.plan.group_draw import GroupDraw, ListDraw, plan_group_draw
from ...kernels.plan.problem import Choices
from .arguments import Arguments, checked_arguments, home_of, is_array, num_items_of
from .catalog_shard import CatalogShard
from .exchange import all_gather, exchanged, gathered
from .gathered_rows import folded_words, manual_axes, owners, target_places
from .list_operands import Tables
from .operands import Operands
from .row_losses import Sampled, evaluate, no_rows, sampled_rows
from .sums import sum_of_parts
from .working_set import WorkingSet


@dataclass(frozen=True)
class Kind:
    """A shard's call on its first ``size`` rows; of a working set with the ``plan`` that it was drawn by."""

    sampled: Sampled
    size: int
    plan: GroupDraw | ListDraw | None


@dataclass(frozen=True)
class Sharded:
    """What is static in a call on a sharded catalog: ``kinds`` of shards, by their numbers of items and draws, and
    ``kind_of`` each shard."""

    options: Options
    catalog: CatalogShard
    kinds: tuple[Kind, ...]
    kind_of: tuple[int, ...]


@kept_with_sampler
def own_sampler(sampler: Negatives, shard: Shard) -> Negatives:
    """What draws a shard's part of a sampler's negatives, made once."""
    return sampler.of_shard(shard)


@kept_with_sampler
def _tables(sampler: Negatives, shards: tuple[Shard, ...], home: Sharding | None, default: object) -> Tables:
    """The tables of every shard's sampler, (P, parts, V_0) and (P, V_0) with V_0 of the first, the largest."""
    ends, weights = [], []
    for shard in shards:
        own, rest = own_sampler(sampler, shard).probabilities(shard.size), shards[0].size - shard.size
        if own.slot_ends is not None:
            ends.append(np.pad(own.slot_ends.reshape(-1, shard.size), ((0, 0), (0, rest))))
        if own.log_weight is not None:
            weights.append(np.pad(np.broadcast_to(own.log_weight, shard.size), (0, rest)))
    tables = np.stack(ends) if ends else None, np.stack(weights) if weights else None
    with jax.ensure_compile_time_eval():
        return Tables(*jax.device_put(tables, home))


def shard_tables(negatives: Negatives, shards: tuple[Shard, ...], draw: Draw, home: Sharding | None) -> Tables:
    """The tables of every shard's sampler, where draws have weights."""
    if draw.lists is None or not draw.lists.has_weights:
        return Tables()
    return _tables(negatives, shards, home, jax.config.jax_default_device)  # type: ignore[attr-defined]


def checked_catalog(catalog: object, linear_weight: ArrayLike, negatives: object) -> CatalogShard | None:
    """The catalog where it is sharded; None where it is the table, whole: one shard's call is the plain one."""
    if catalog is None:
        return None
    if not isinstance(catalog, CatalogShard):
        raise ArgumentTypeError("catalog", "a CatalogShard or None", type(catalog).__name__)
    shards, has_rows = catalog.shards(), isinstance(negatives, WorkingSet)
    rows = catalog.rows(len(shards))
    if is_array(linear_weight) and linear_weight.ndim == 2 and len(linear_weight) != rows and not has_rows:
        expected = f"the {rows} rows that each of {len(shards)} shards of {catalog.num_items} items has"
        raise ArgumentValueError("linear_weight", expected, linear_weight.shape)
    return None if len(shards) == 1 else catalog


def sharded_losses(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: object, options: Options, *,
    linear_bias: ArrayLike | None, sample_weight: ArrayLike | None, logit_scale: ArrayLike, seed: ArrayLike | None,
    log_q: ArrayLike | None, history: History | None, catalog: CatalogShard,
) -> tuple[Array, ...]:  # fmt: skip
    """``sampled_losses`` of this shard's rows, where ``linear_weight``, ``linear_bias``, ``log_q`` and the items of
    ``history`` are the shard's."""
    given = negatives if isinstance(negatives, WorkingSet) else None
    if given is None and not isinstance(negatives, Negatives):
        expected = "a sampler or a working set beside a sharded catalog"
        raise ArgumentTypeError("negatives", expected, type(negatives).__name__)
    shards = catalog.shards()
    if given is not None:
        if given.gathered is None:
            raise ArgumentValueError("negatives", "a working set that was made with the catalog", "one without")
        check_working_set(given, num_items_of(linear_weight), np.shape(target), seed=seed, log_q=log_q, history=history)
    sampler: Any = negatives if given is None else given.sampler
    own = [own_sampler(sampler, shard) for shard in shards]
    draws = [each.draw(shard.size) for shard, each in zip(shards, own, strict=True)]
    sizes, plans = [shard.size for shard in shards], [None] * len(shards)
    if given is not None:
        num_rows = len(shards) * math.prod(np.shape(target))
        plans = [plan_group_draw(each, num_rows, size, IGNORED) for size, each in zip(sizes, own, strict=True)]
        draws = [on_rows(draw, size) for size, draw in zip(sizes, draws, strict=True)]
        sizes = [num_items_of(linear_weight)] * len(shards)
    arguments = checked_arguments(
        input, linear_weight, target, None, options, linear_bias=linear_bias, sample_weight=sample_weight,
        logit_scale=logit_scale, seed=seed, draws=given is None and draws[0].random, log_q=log_q, history=history,
    )  # fmt: skip
    if given is None:
        tables = shard_tables(sampler, shards, draws[0], home_of(arguments))
        known = tables.log_weight if log_q is None else log_q
        arguments = arguments._replace(tables=tables)
    else:
        known, arguments = given.log_weight, arguments._replace(seed=given.seed, given=given)
    choices = Choices(
        softcap=options.softcap,
        remove_accidental_hits=options.remove_accidental_hits,
        ignore_index=IGNORED,
        scale_grad=is_array(logit_scale),
        positive_weight=None,
        correction=correction_of(draws[0], known, options, None),
        is_shard=True,
    )
    own_options = replace(options, ignore_index=IGNORED, return_lse=True)
    of_shards = [
        Kind(Sampled(own_options, draw, choices), size, plan)
        for draw, size, plan in zip(draws, sizes, plans, strict=True)
    ]
    kinds = tuple(dict.fromkeys(of_shards))
    static = Sharded(options, catalog, kinds, tuple(map(kinds.index, of_shards)))
    return evaluate(_sharded_rows, arguments, static)


def _sharded_rows(x: Operands, arguments: Arguments, static: Sharded) -> tuple[Array, Array | None, Array]:
    options, catalog, given = static.options, static.catalog, arguments.given
    axis, num_shards = catalog.axis_name, len(static.kind_of)
    counts, num_rows = x.target != options.ignore_index, len(x.target)
    if num_rows == 0:
        return no_rows(x), no_rows(x) if options.return_lse else None, counts
    x, log_q, history, counts = as_varying(
        (x, arguments.log_q, arguments.history, counts), varying_axes(x) | manual_axes(axis)
    )
    index = jax.lax.axis_index(axis)
    history = history and (all_gather(history[0].reshape(-1), axis), *history[1:])
    if given is None:
        owner, target = owners(x.target, counts, catalog), target_places(x.target, counts, catalog)
        x = x._replace(seed=folded_words(x.seed, catalog))
    else:
        assert given.gathered is not None
        owner, target = x.target, given.gathered
    x = x._replace(input=gathered(x.input, axis), target=target)
    slot_ends, log_weight = (None if table is None else table[index] for table in arguments.tables)

    def rows_of(kind: Kind, arrays: tuple[Any, ...]) -> Array:
        """(2, P N) the score of each row's target and the logsumexp of its negatives."""
        x, log_q, history, slot_ends, log_weight, given = arrays
        size = kind.size
        x = x._replace(weight=x.weight[:size], bias=None if x.bias is None else x.bias[:size])
        tables = Tables(
            None if slot_ends is None else slot_ends[:, :size].reshape(-1),
            None if log_weight is None else log_weight[:size],
        )
        own = Arguments(
            x.input, x.weight, x.target, None, x.bias, None, x.scale, x.seed, None if log_q is None else log_q[:size],
            history, tables, None if given is None else _own_part(given, kind.plan),
        )  # fmt: skip
        return jnp.stack(sampled_rows(x, own, kind.sampled)[:2])  # type: ignore[arg-type]

    branches = [functools.partial(rows_of, kind) for kind in static.kinds]
    arrays = x, log_q, history, slot_ends, log_weight, given
    kind = jnp.asarray(static.kind_of)[index]
    parts = jax.lax.switch(kind, branches, arrays) if len(branches) > 1 else branches[0](arrays)
    parts = exchanged(parts.reshape(2, num_shards, num_rows).swapaxes(0, 1), axis)
    loss, lse = _joined(parts, owner)
    return loss, lse if options.return_lse else None, counts


def _own_part(given: WorkingSet, plan: GroupDraw | ListDraw | None) -> WorkingSet:
    """The working set of its own number of items, without what fills it up to the shapes of other shards'."""
    assert plan is not None
    drawn, weight, size = given.drawn, given.history_weight, plan.num_items
    if drawn is not None:
        drawn = drawn[:, : plan.columns] if isinstance(plan, ListDraw) else drawn[: plan.num_drawn + len(given.ids)]
    return replace(given, drawn=drawn, history_weight=None if weight is None else weight[:size], num_items=size)


@jax.custom_vjp
def _joined(parts: Array, owner: Array) -> tuple[Array, Array]:
    """loss and lse (N,) of rows from the shards' parts (P, 2, N), the score z_0 of the row's target where the shard
    ``owner`` (N,) has it, and the logsumexp lse_r of the shard's negatives.

    With M = logsumexp of the lse_r in the order of shards and gap = M - z_0: ``loss = softplus(gap)``, ``lse = z_0 +
    loss``, or where the negatives are the larger ones M + softplus(-gap). With 1 - p_0 = sigmoid(gap), u and v
    upstream: dz_0 = v p_0 - u (1 - p_0), dlse_r = (u + v) (1 - p_0) exp(lse_r - M). Where no negative weighs anything
    the loss is 0, as in a call on the whole catalog. A row that is ignored has owner -1.
    """
    return _join(parts, owner)[0]


def _join(parts: Array, owner: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    scores, lses = parts[:, 0], parts[:, 1]
    counted, is_owner = owner >= 0, owner == jnp.arange(len(parts))[:, None]
    positive = jnp.where(is_owner, scores, 0.0).sum(0)
    positive = jnp.where(positive == jnp.inf, jnp.nan, positive)
    peak = lses.max(0)
    weighs = peak != -jnp.inf
    peak = jnp.where(weighs, peak, 0.0)  # -inf - -inf would be NaN
    masses = jnp.exp(lses - peak)
    total = jnp.where(weighs, sum_of_parts(masses), 1.0)
    log_total = jnp.log(total)
    gap = jnp.where(weighs | jnp.isnan(positive), (peak - positive) + log_total, -jnp.inf)
    loss, excess = jax.nn.softplus(gap), jax.nn.softplus(-gap)
    lse = jnp.where(gap > 0, peak + (log_total + excess), positive + loss)
    results = jnp.where(counted, loss, 0.0), jnp.where(counted, lse, 0.0)
    return results, (masses / total, gap, is_owner, counted)


@own_settings()
def _of_parts(saved: tuple[Array, ...], grads: tuple[Array, Array]) -> tuple[Array, None]:
    shares, gap, is_owner, counted = saved
    grad_loss, grad_lse = grads
    of_positive = grad_lse * jax.nn.sigmoid(-gap) - grad_loss * jax.nn.sigmoid(gap)
    of_negatives = (grad_loss + grad_lse) * jax.nn.sigmoid(gap) * shares
    of_parts = jnp.stack([jnp.where(is_owner, of_positive, 0.0), of_negatives], 1)
    return jnp.where(counted, of_parts, 0.0), None


_joined.defvjp(_join, _of_parts)
