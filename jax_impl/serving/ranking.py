"""Ranks and top items over the full catalog: by kernels on a GPU, else in chunks; (B, V) scores never exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...interop import call, local_gpus
from ...kernels.plan.ranking import Ranking, plan_ranking
from ...recsys import NO_ITEM, SeenItems

Carry = TypeVar("Carry")
Top = tuple[Array, Array]

CHUNK = 8192
"""Catalog items scored at once without kernels: memory is rows x CHUNK scores, whatever the catalog's size."""

SCORED = 128
"""Places of the lists scored at once by `item_scores`: memory is rows x SCORED item vectors, whatever k is."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """`SeenItems` on the device: ``row`` and ``item`` (P,) int32, where each row's pairs start in them, ``first`` (B +
    1,) int32, and how many a row has at most. Pairs of row B and of no item fill up."""

    row: ArrayLike
    item: ArrayLike
    first: ArrayLike
    most: int = field(metadata={"static": True})

    @classmethod
    def of(cls, seen: SeenItems | None, num_rows: int) -> Seen | None:
        """Arranges the seen items of a batch of ``num_rows``; None, where all items compete, stays None."""
        if seen is None:
            return None
        arrays, most = seen.padded(num_rows)
        return cls(**arrays, most=most)


@partial(jax.jit, static_argnums=3)
def target_ranks(
    hidden: Array,
    table: Array,
    target: Array,
    chunk: int | None = None,
    seen: Seen | None = None,
    candidates: Array | None = None,
) -> Array:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int32, 1 is best, in float32.

    ``rank = 1 + #(score > target's) + #(score == target's and id < target)`` over the items that ``seen`` does not
    leave out, NaN above every number, and V + 1 for a NaN target score: the rule of ``recsys.target_ranks``. ``hidden``
    (B, D), ``table`` (V, D), ``target`` (B,); negative targets mark rows that only fill the batch, and their rank means
    nothing. ``candidates`` (V,) bool: others are not ahead of a target. A ``chunk`` scores so many items at once in
    plain JAX, on a GPU too.
    """
    return rank_and_top(hidden, table, target, 0, chunk, seen, candidates)[0]


@partial(jax.jit, static_argnums=(3, 4))
def rank_and_top(
    hidden: Array,
    table: Array,
    target: Array,
    k: int,
    chunk: int | None = None,
    seen: Seen | None = None,
    candidates: Array | None = None,
) -> tuple[Array, Array]:
    """`target_ranks` (B,) and `top_items` (B, k) of the same scores."""
    plain = partial(_rank_and_top, k=k, chunk=chunk or CHUNK)
    return _by_platform(plain, hidden, table, target, k, chunk, seen, candidates)


@partial(jax.jit, static_argnums=(2, 3))
def top_items(
    hidden: Array,
    table: Array,
    k: int,
    chunk: int | None = None,
    seen: Seen | None = None,
    candidates: Array | None = None,
) -> Array:
    """Ids (B, k) int32 of the highest scores ``hidden @ table.T``, ties by lower id, NaN last.

    Items that ``seen`` leaves out, and those that are no ``candidates`` (V,) bool, are not among them; ``NO_ITEM``
    fills places for which no other item is left. A ``chunk`` scores so many items at once in plain JAX, on a GPU too.
    """
    plain = partial(_top_items, k=k, chunk=chunk or CHUNK)
    return _by_platform(plain, hidden, table, None, k, chunk, seen, candidates)[1]


@jax.jit
def item_scores(hidden: Array, table: Array, items: Array) -> Array:
    """Scores (B, k) float32 of ``items`` (B, k): ``hidden[b] . table[items[b, j]]``, -inf for ``NO_ITEM``.

    The kernels keep no score of the items that they choose, so these are products of their own, in float32: of two
    items whose scores differ by a rounding, the second may have the larger one here.
    """
    starts = np.arange(SCORED, items.shape[1], SCORED)
    scores = [
        (hidden.astype(jnp.float32)[:, None] * table[jnp.maximum(some, 0)].astype(jnp.float32)).sum(axis=-1)
        for some in jnp.split(items, starts, axis=1)
    ]
    return jnp.where(items == NO_ITEM, -jnp.inf, jnp.concatenate(scores, axis=1))


def _by_platform(
    plain: Callable[..., tuple[Array, Array]], hidden: Array, table: Array, target: Array | None, k: int,
    chunk: int | None, seen: Seen | None, candidates: Array | None,
) -> tuple[Array, Array]:  # fmt: skip
    """Ranks (B,) and the best items (B, k), where no ``chunk`` is given by kernels on a GPU."""
    most_seen = 0 if seen is None else seen.most
    has_targets, has_candidates = target is not None, candidates is not None
    plans = plan_ranking(len(hidden), len(table), table.shape[1], k, has_targets, most_seen, has_candidates)
    operands = hidden, table, target, seen, candidates
    if chunk is not None or plans is None:
        return plain(*operands)
    return jax.lax.platform_dependent(*operands, cuda=partial(rank_by_kernels, plans), default=plain)


def _launch(outs: Any, ins: Any, plan: Ranking) -> None:
    from ...kernels.launch import ranking as launch

    launch.launch_ranking(outs, ins, plan)


def rank_by_kernels(
    plans: tuple[Ranking, ...],
    hidden: Array,
    table: Array,
    target: Array | None,
    seen: Seen | None,
    candidates: Array | None = None,
) -> tuple[Array, Array]:
    """Ranks (B,), zeros without targets, and the best items (B, k), both int32, by the kernels of ``plans``."""
    found, first = [], 0
    for plan in plans:
        some = slice(first, first + plan.num_users)
        ins = {"hidden": hidden[some].astype(jnp.float32), "table": table}
        if target is not None:
            ins["target"] = target[some].astype(jnp.int32)
        if candidates is not None:
            ins["candidates"] = candidates.astype(jnp.uint8)
        if plan.most_seen and seen is not None:
            starts = jnp.asarray(seen.first)[first : first + plan.num_users + 1]
            ins |= {"seen_first": starts, "seen_items": jnp.asarray(seen.item)}
        for gpu in local_gpus():
            from ...kernels.launch import ranking as launch

            launch.compile_kernels(plan, tuple((name, str(array.dtype)) for name, array in ins.items()), gpu)
        outs = {buffer.name: jax.ShapeDtypeStruct(buffer.shape, buffer.dtype) for buffer in plan.buffers}
        found.append(call(_launch, outs, ins, plan))
        first += plan.num_users
    rank, top = (
        jnp.concatenate([each[name] for each in found]) if name in found[0] else jnp.zeros(shape, jnp.int32)
        for name, shape in (("rank", len(hidden)), ("top", (len(hidden), plans[0].k)))
    )
    return rank, top


def _rank_and_top(
    hidden: Array, table: Array, target: Array, seen: Seen | None, candidates: Array | None, *, k: int, chunk: int
) -> tuple[Array, Array]:
    target = jnp.maximum(target, 0).astype(jnp.int32)[:, None]

    # Scored in the same products as its rivals: one of its own may round differently, and equal rows would not tie.
    def find_target(target_score: Array, ids: Array, scores: Array) -> Array:
        column = target - ids[0]
        here = (column >= 0) & (column < len(ids))
        found = jnp.take_along_axis(scores, jnp.clip(column, 0, len(ids) - 1), axis=1)
        return jnp.where(here, found, target_score)

    def count_and_merge(carry: tuple[Array, Top], ids: Array, scores: Array) -> tuple[Array, Top]:
        rank, best = carry
        ahead = (scores > target_score) | jnp.isnan(scores) | ((scores == target_score) & (ids < target))
        rank += _leave_out(ahead, seen, candidates, ids, value=False).sum(axis=1, dtype=jnp.int32)
        return rank, _merge(best, seen, candidates, ids, scores) if k else best

    target_score = fold_catalog(find_target, jnp.zeros(target.shape, jnp.float32), hidden, table, chunk)
    start = jnp.ones(len(target), jnp.int32), _no_items(len(hidden), k)
    rank, best = fold_catalog(count_and_merge, start, hidden, table, chunk)
    return jnp.where(jnp.isnan(target_score[:, 0]), len(table) + 1, rank), _items(best)


def _top_items(
    hidden: Array, table: Array, target: None, seen: Seen | None, candidates: Array | None, *, k: int, chunk: int
) -> tuple[Array, Array]:
    def merge(best: Top, ids: Array, scores: Array) -> Top:
        return _merge(best, seen, candidates, ids, scores)

    best = fold_catalog(merge, _no_items(len(hidden), k), hidden, table, chunk)
    return jnp.zeros(len(hidden), jnp.int32), _items(best)


def fold_catalog(
    fold: Callable[[Carry, Array, Array], Carry], carry: Carry, hidden: Array, table: Array, chunk: int
) -> Carry:
    """Folds ``carry = fold(carry, ids (C,), scores (B, C))`` over the chunks of the catalog in order, float32, C
    <= chunk.

    Full chunks share one compiled loop body; the remainder, of another shape, follows it.
    """

    def step(carry: Carry, index: Array | int, width: int) -> Carry:
        begin = index * chunk
        rows = jax.lax.dynamic_slice_in_dim(table, begin, width).astype(jnp.float32)
        scores = jnp.matmul(hidden.astype(jnp.float32), rows.T, precision="highest")
        return fold(carry, begin + jnp.arange(width), scores)

    full, remainder = divmod(len(table), chunk)
    if full:
        carry = jax.lax.fori_loop(0, full, lambda index, state: step(state, index, chunk), carry)
    return step(carry, full, remainder) if remainder else carry


def _leave_out(values: Array, seen: Seen | None, candidates: Array | None, ids: Array, value: float) -> Array:
    """``values`` (B, C) of the items ``ids`` with those of seen items, and of those that are no candidates, set to
    ``value``."""
    if candidates is not None:
        values = jnp.where(candidates[ids], values, value)
    if seen is None:
        return values
    column = jnp.asarray(seen.item) - ids[0]
    inside = (column >= 0) & (column < len(ids))
    return values.at[jnp.asarray(seen.row), jnp.where(inside, column, len(ids))].set(value, mode="drop")


def _no_items(rows: int, k: int) -> Top:
    return jnp.full((rows, k), -jnp.inf, jnp.float32), jnp.full((rows, k), NO_ITEM, jnp.int32)


def _merge(best: Top, seen: Seen | None, candidates: Array | None, ids: Array, scores: Array) -> Top:
    """The scores and ids (B, k) of the best items so far, this chunk's among them."""
    # Empty places and seen items lose to every item, because an item's score is kept above -inf.
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest)
    scores = _leave_out(scores, seen, candidates, ids, value=-jnp.inf)
    # top_k puts the earlier of equal scores first, and the earlier one has the lower id.
    all_scores = jnp.concatenate([best[0], scores], axis=1)
    all_ids = jnp.concatenate([best[1], jnp.broadcast_to(ids, scores.shape)], axis=1)
    top_scores, places = jax.lax.top_k(all_scores, best[0].shape[1])
    return top_scores, jnp.take_along_axis(all_ids, places, axis=1)


def _items(best: Top) -> Array:
    return jnp.where(best[0] == -jnp.inf, NO_ITEM, best[1])
