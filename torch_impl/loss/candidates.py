"""Tiles of rows that share candidates, and which those are, in plain torch: the draws of
``kernels.draws``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.draws.lists import ITEMS, ROWS
from ...kernels.draws.permutation import MASK, Arithmetic
from ...kernels.draws.uniform import row_places
from ...kernels.plan.problem import Problem
from .operands import Operands

CHUNK_ELEMENTS = 1 << 22  # numbers that a chunk of rows may take


class Chunk(NamedTuple):
    """Tiles of rows that share candidates: rows (T, G), which of them count, and ids (T, K) or (1, K)."""

    rows: Tensor
    counted: Tensor
    ids: Tensor


Choose = Callable[[Chunk], Tensor]  # the list (T, K) of each tile, from a chunk whose ids are what it is chosen from


def _walk(step, x: Tensor, is_outside) -> Tensor:
    while (outside := is_outside(x)).any():
        x = torch.where(outside, step(x), x)
    return x


def arithmetic(device: torch.device) -> Arithmetic:
    """torch's words are int64 below 2^32: it has no full set of uint32 operations."""

    def words(value) -> Tensor:
        return torch.as_tensor(value, dtype=torch.int64, device=device)

    return Arithmetic(u32=words, where=torch.where, walk=_walk)


def chunks(x: Operands, p: Problem, choose: Choose) -> Iterator[Chunk]:
    """All rows, some tiles at a time."""
    device = x.target.device
    counted = x.target != p.ignore_index
    columns = p.lists.columns if p.lists else p.negatives
    per_tile = columns * (p.dim + 1)
    if p.mode in ("all", "shared_ids"):
        shared = torch.arange(p.num_items, device=device) if x.ids is None else x.ids
        for rows in torch.arange(p.num_rows, device=device).split(max(1, CHUNK_ELEMENTS // p.negatives)):
            yield Chunk(rows[None], counted[rows][None], shared[None])
    elif p.mode == "row_ids":
        assert x.ids is not None
        for rows in torch.arange(p.num_rows, device=device).split(max(1, CHUNK_ELEMENTS // per_tile)):
            yield Chunk(rows[:, None], counted[rows][:, None], x.ids[rows])
    else:
        xp = arithmetic(device)
        words = x.seed.long() & MASK
        seed = words[1], words[0]
        ranks = torch.cumsum(counted, 0) - 1
        group = p.group_size
        total = torch.clamp(counted.sum(), min=1)
        places = row_places(xp, seed, torch.clamp(ranks, min=0), total, p.shuffle_rows)
        tiles = -(-p.num_rows // group)
        table = torch.full((tiles * group + 1,), -1, device=device)
        table[torch.where(counted, places, tiles * group)] = torch.arange(p.num_rows, device=device)
        table = table[:-1].view(tiles, group)
        for index in torch.arange(tiles, device=device).split(max(1, CHUNK_ELEMENTS // (per_tile + group * columns))):
            rows = table[index]
            chunk = Chunk(rows.clamp(min=0), rows >= 0, index)
            chunk = chunk._replace(ids=_tile_ids(x, xp, seed, chunk, p))
            yield chunk._replace(ids=choose(chunk)) if p.chooses else chunk


def _tile_ids(x: Operands, xp: Arithmetic, seed: tuple[Tensor, Tensor], chunk: Chunk, p: Problem) -> Tensor:
    """The candidates (T, K) of tiles, whose numbers ``chunk.ids`` holds."""
    tiles = chunk.ids
    if p.draw.given:
        assert x.ids is not None
        return x.ids[: p.given_places].view(p.num_groups, -1)[tiles, : p.negatives]
    if p.draws is not None:
        return p.draws.items(xp, seed, tiles)
    if p.lists is None or not p.draw.draws_lists:
        assert x.ids is not None
        return x.ids[tiles]
    ends = iter(() if x.slot_ends is None else x.slot_ends.long().view(-1, p.num_items))
    parts = []
    for source, drawn in p.lists.drawn(xp, seed, tiles):
        if source == ROWS:
            target = x.target[chunk.rows].long()
            is_item = chunk.counted & (target >= 0) & (target < p.num_items)
            parts.append(torch.where(is_item, target, -1))
        else:
            assert drawn is not None
            parts.append(drawn if source == ITEMS else torch.searchsorted(next(ends), drawn, right=True))
    return torch.cat(parts, 1)
