"""Ranks and top items over the full catalog, scored on the device in chunks: (B, chunk) scores exist, never (B, V)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...recsys import NO_ITEM, SeenItems

CHUNK = 32768
"""Catalog items scored at once: memory is rows x CHUNK scores and sort keys of eight bytes, whatever the catalog's
size. Each chunk costs the host some forty kernels."""

_LEFT_OUT = torch.iinfo(torch.int64).min  # below the key of every score


class Seen(NamedTuple):
    """`SeenItems` on the device: ``row`` and ``item`` (P,) int64, and on the host where each chunk's pairs start."""

    row: Tensor
    item: Tensor
    starts: list[int]

    @classmethod
    def of(cls, seen: SeenItems | None, num_items: int, device: torch.device, chunk: int = CHUNK) -> Seen | None:
        """Moves a batch's seen items to the device; None, where all items compete, stays None."""
        if seen is None:
            return None
        row, item = (torch.from_numpy(ids).to(device).long() for ids in (seen.row, seen.item))
        return cls(row, item, seen.starts(num_items, chunk).tolist())


@torch.no_grad()
def target_ranks(hidden: Tensor, table: Tensor, target: Tensor, chunk: int = CHUNK, seen: Seen | None = None) -> Tensor:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int64, 1 is best, in float32.

    ``rank = 1 + #(score > target's) + #(score == target's and id < target)`` over the items that ``seen`` does not
    leave out, NaN above every number, and V + 1 for a NaN target score: the rule of ``recsys.target_ranks``. ``hidden``
    (B, D), ``table`` (V, D), ``target`` (B,); negative targets mark rows that only fill the batch, and their rank means
    nothing.
    """
    return rank_and_top(hidden, table, target, 0, chunk, seen)[0]


@torch.no_grad()
def rank_and_top(
    hidden: Tensor, table: Tensor, target: Tensor, k: int, chunk: int = CHUNK, seen: Seen | None = None
) -> tuple[Tensor, Tensor]:
    """`target_ranks` (B,) and `top_items` (B, k) of the same scores."""
    target = target.long().clamp_min(0)[:, None]
    # Scored in the same products as its rivals, so that equal rows of the table tie exactly.
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
        rank += _leave_out(ahead, seen, begin, chunk, value=False).sum(dim=1)
        if k:
            best = _merge(best, scores, ids, seen, begin, chunk)
    return torch.where(target_score[:, 0].isnan(), len(table) + 1, rank), _items(best)


@torch.no_grad()
def top_items(hidden: Tensor, table: Tensor, k: int, chunk: int = CHUNK, seen: Seen | None = None) -> Tensor:
    """Ids (B, k) int64 of the highest scores ``hidden @ table.T``, ties by lower id, NaN last.

    Items that ``seen`` leaves out are not among them; ``NO_ITEM`` fills places for which no other item is left.
    """
    best = _no_items(len(hidden), k, hidden.device)
    for begin, scores in score_chunks(hidden, table, chunk):
        ids = torch.arange(begin, begin + scores.shape[1], device=hidden.device)
        best = _merge(best, scores, ids, seen, begin, chunk)
    return _items(best)


def score_chunks(hidden: Tensor, table: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields (first id, float32 scores (B, <= chunk)) over the catalog, autocast off."""
    with torch.autocast(hidden.device.type, enabled=False):
        for begin in range(0, len(table), chunk):
            yield begin, hidden.float() @ table[begin : begin + chunk].float().T


def _leave_out(values: Tensor, seen: Seen | None, begin: int, chunk: int, value: float) -> Tensor:
    """Sets the chunk's ``values`` (B, C) of seen items to ``value``, in place."""
    if seen is not None:
        first, last = seen.starts[begin // chunk], seen.starts[begin // chunk + 1]
        values[seen.row[first:last], seen.item[first:last] - begin] = value
    return values


def _no_items(rows: int, k: int, device: torch.device) -> Tensor:
    return torch.full((rows, k), _LEFT_OUT, dtype=torch.int64, device=device)


def _merge(best: Tensor, scores: Tensor, ids: Tensor, seen: Seen | None, begin: int, chunk: int) -> Tensor:
    """The keys (B, k) of the best items so far, this chunk's among them."""
    keys = _leave_out(_sort_keys(scores, ids), seen, begin, chunk, value=_LEFT_OUT)
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
