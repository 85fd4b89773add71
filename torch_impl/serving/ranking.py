"""Ranks and top items over the full catalog: by kernels on a GPU, else in chunks; (B, V) scores never exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.plan.ranking import Ranking, plan_ranking
from ...recsys import NO_ITEM, SeenItems
from ..devices import to_device
from ..loss.ops import DTYPES
from ..loss.row_losses import has_kernels

CHUNK = 32768
"""Catalog items scored at once without kernels: memory is rows x CHUNK scores and sort keys of eight bytes, whatever
the catalog's size."""

SCORED = 128
"""Places of the lists scored at once by `item_scores`: memory is rows x SCORED item vectors, whatever k is."""

_LEFT_OUT = torch.iinfo(torch.int64).min  # below the key of every score


class Seen(NamedTuple):
    """`SeenItems` on the device: ``row`` and ``item`` (P,) int32, where each row's pairs start in them, ``first`` (B +
    1,) int32, and how many a row has at most. Pairs of row B and of no item fill up."""

    row: Tensor
    item: Tensor
    first: Tensor
    most: int

    @classmethod
    def of(cls, seen: SeenItems | None, num_rows: int, device: torch.device) -> Seen | None:
        """Moves the seen items of a batch of ``num_rows`` to the device; None, where all items compete, stays None."""
        if seen is None:
            return None
        arrays, most = seen.padded(num_rows)
        return cls(**{name: to_device(torch.from_numpy(ids), device) for name, ids in arrays.items()}, most=most)


@torch.no_grad()
def target_ranks(
    hidden: Tensor,
    table: Tensor,
    target: Tensor,
    chunk: int | None = None,
    seen: Seen | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int64, 1 is best, in float32.

    ``rank = 1 + #(score > target's) + #(score == target's and id < target)`` over the items that ``seen`` does not
    leave out, NaN above every number, and V + 1 for a NaN target score: the rule of ``recsys.target_ranks``. ``hidden``
    (B, D), ``table`` (V, D), ``target`` (B,); negative targets mark rows that only fill the batch, and their rank means
    nothing. ``candidates`` (V,) bool: others are not ahead of a target. A ``chunk`` scores so many items at once in
    plain torch, on a GPU too.
    """
    return rank_and_top(hidden, table, target, 0, chunk, seen, candidates)[0]


@torch.no_grad()
def rank_and_top(
    hidden: Tensor,
    table: Tensor,
    target: Tensor,
    k: int,
    chunk: int | None = None,
    seen: Seen | None = None,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`target_ranks` (B,) and `top_items` (B, k) of the same scores."""
    if plans := _plans(hidden, table, k, True, chunk, seen, candidates):
        return rank_by_kernels(plans, hidden, table, target, seen, candidates)
    chunk = chunk or CHUNK
    target = target.long().clamp_min(0)[:, None]
    # Scored in the same products as its rivals: one of its own may round differently, and equal rows would not tie.
    target_score = torch.empty_like(target, dtype=torch.float32)
    for begin, scores in score_chunks(hidden, table, chunk):
        here = (begin <= target) & (target < begin + scores.shape[1])
        column = (target - begin).clamp(0, scores.shape[1] - 1)
        target_score = torch.where(here, scores.gather(1, column), target_score)
    rank = torch.ones(len(target), dtype=torch.int64, device=target.device)
    best = _no_items(len(hidden), k, hidden.device)
    for begin, scores in score_chunks(hidden, table, chunk):
        ids = torch.arange(begin, begin + scores.shape[1], device=target.device)
        ahead = (scores > target_score) | scores.isnan() | ((scores == target_score) & (ids < target))
        rank += _leave_out(ahead, seen, candidates, begin, value=False).sum(dim=1)
        if k:
            best = _merge(best, scores, ids, seen, candidates, begin)
    return torch.where(target_score[:, 0].isnan(), len(table) + 1, rank), _items(best)


@torch.no_grad()
def top_items(
    hidden: Tensor,
    table: Tensor,
    k: int,
    chunk: int | None = None,
    seen: Seen | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    """Ids (B, k) int64 of the highest scores ``hidden @ table.T``, ties by lower id, NaN last.

    Items that ``seen`` leaves out, and those that are no ``candidates`` (V,) bool, are not among them; ``NO_ITEM``
    fills places for which no other item is left. A ``chunk`` scores so many items at once in plain torch, on a GPU too.
    """
    if plans := _plans(hidden, table, k, False, chunk, seen, candidates):
        return rank_by_kernels(plans, hidden, table, None, seen, candidates)[1]
    best = _no_items(len(hidden), k, hidden.device)
    for begin, scores in score_chunks(hidden, table, chunk or CHUNK):
        ids = torch.arange(begin, begin + scores.shape[1], device=hidden.device)
        best = _merge(best, scores, ids, seen, candidates, begin)
    return _items(best)


@torch.no_grad()
def item_scores(hidden: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Scores (B, k) float32 of ``items`` (B, k): ``hidden[b] . table[items[b, j]]``, -inf for ``NO_ITEM``.

    The kernels keep no score of the items that they choose, so these are products of their own, in float32: of two
    items whose scores differ by a rounding, the second may have the larger one here.
    """
    scores = [
        (hidden.float()[:, None] * table[some.clamp_min(0)].float()).sum(dim=-1) for some in items.split(SCORED, dim=1)
    ]
    return torch.where(items == NO_ITEM, -torch.inf, torch.cat(scores, dim=1))


def best_of(items: Tensor, scores: Tensor, k: int) -> Tensor:
    """The k of ``items`` (B, n) int64 with the highest ``scores`` (B, n), as `top_items` orders them; (B, k)."""
    keys = torch.where(items == NO_ITEM, _LEFT_OUT, _sort_keys(scores, items))
    return _items(keys.topk(k, dim=1).values)


def _plans(
    hidden: Tensor,
    table: Tensor,
    k: int,
    has_targets: bool,
    chunk: int | None,
    seen: Seen | None,
    candidates: Tensor | None,
) -> tuple[Ranking, ...] | None:
    if chunk is not None or not has_kernels(hidden.device):
        return None
    most_seen = seen.most if seen else 0
    return plan_ranking(len(hidden), len(table), table.shape[1], k, has_targets, most_seen, candidates is not None)


def rank_by_kernels(
    plans: tuple[Ranking, ...],
    hidden: Tensor,
    table: Tensor,
    target: Tensor | None,
    seen: Seen | None,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Ranks (B,), if there are targets, and the best items (B, k), both int64, by the kernels of ``plans``."""
    from ...kernels.launch.ranking import launch_ranking

    k, device = plans[0].k, hidden.device
    rank, top = (torch.zeros(shape, dtype=torch.int32, device=device) for shape in (len(hidden), (len(hidden), k)))
    hidden, table, first = hidden.float().contiguous(), table.contiguous(), 0
    with torch.cuda.device_of(hidden):
        for plan in plans:
            some = slice(first, first + plan.num_users)
            outs = {b.name: torch.empty(b.shape, dtype=DTYPES[b.dtype], device=device) for b in plan.buffers}
            outs |= {name: whole[some] for name, whole in (("rank", rank), ("top", top)) if name in outs}
            ins = {"hidden": hidden[some], "table": table}
            if target is not None:
                ins["target"] = target[some]
            if candidates is not None:
                ins["candidates"] = candidates.view(torch.uint8)
            if plan.most_seen and seen is not None:
                ins |= {"seen_first": seen.first[first : first + plan.num_users + 1], "seen_items": seen.item}
            launch_ranking(outs, ins, plan)
            del outs  # the next pass takes its memory
            first += plan.num_users
    return rank.long(), top.long()


def compile_ranking(
    num_users: int, table: Tensor, k: int, most_seen: int, *, has_candidates: bool = False, has_targets: bool = True
) -> None:
    """Compiles, without touching the GPU, what ranks ``num_users`` targets, if there are any, among a ``table`` on it,
    for users with at most so many seen items."""
    from ...kernels.launch.ranking import compile_kernels

    plans = plan_ranking(num_users, len(table), table.shape[1], k, has_targets, most_seen, has_candidates) or ()
    dtypes = dict.fromkeys(("target", "seen_first", "seen_items"), "int32")
    dtypes |= {"hidden": "float32", "table": str(table.dtype).removeprefix("torch."), "candidates": "uint8"}
    for plan in set(plans):
        compile_kernels(plan, tuple(dtypes.items()), table.device.index, ahead=False)


def score_chunks(hidden: Tensor, table: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields (first id, float32 scores (B, <= chunk)) over the catalog, autocast off."""
    with torch.autocast(hidden.device.type, enabled=False):
        for begin in range(0, len(table), chunk):
            yield begin, hidden.float() @ table[begin : begin + chunk].float().T


def _leave_out(values: Tensor, seen: Seen | None, candidates: Tensor | None, begin: int, value: float) -> Tensor:
    """Sets the ``values`` (B, C) of seen items, and of those that are no candidates, from ``begin`` on to ``value``, in
    place."""
    if candidates is not None:
        values.masked_fill_(~candidates[begin : begin + values.shape[1]], value)
    if seen is not None:
        inside = (begin <= seen.item) & (seen.item < begin + values.shape[1])
        values[seen.row[inside].long(), seen.item[inside].long() - begin] = value
    return values


def _no_items(rows: int, k: int, device: torch.device) -> Tensor:
    return torch.full((rows, k), _LEFT_OUT, dtype=torch.int64, device=device)


def _merge(
    best: Tensor, scores: Tensor, ids: Tensor, seen: Seen | None, candidates: Tensor | None, begin: int
) -> Tensor:
    """The keys (B, k) of the best items so far, this chunk's among them."""
    keys = _leave_out(_sort_keys(scores, ids), seen, candidates, begin, value=_LEFT_OUT)
    # The chunk's own best come first: selecting once from k + C keys would copy all of them.
    return (
        torch.cat([best, keys.topk(min(best.shape[1], keys.shape[1]), dim=1).values], dim=1)
        .topk(best.shape[1], dim=1)
        .values
    )


def _items(keys: Tensor) -> Tensor:
    return torch.where(keys == _LEFT_OUT, NO_ITEM, 0x7FFFFFFF - (keys & 0x7FFFFFFF))


def _sort_keys(scores: Tensor, ids: Tensor) -> Tensor:
    """Distinct int64 keys that order by score and then by lower id (``torch.topk`` breaks ties as it likes).

    The high word is the score's bits, made to order like the number; the low 31 bits are the id's complement.
    """
    finite = torch.where(scores.isnan(), -torch.inf, scores) + 0.0  # + 0.0 turns -0.0 into 0.0, its equal
    bits = finite.view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.long() << 31) | (0x7FFFFFFF - ids)
