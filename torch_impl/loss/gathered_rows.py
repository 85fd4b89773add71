"""Rows of all ranks that share a catalog, gathered on each, and where in its shard their targets are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...kernels.draws.shard import Shard
from ...kernels.errors import ArgumentValueError
from ...kernels.negatives.arguments import IGNORED
from ...kernels.plan.problem import ELSEWHERE
from .catalog_shard import CatalogShard
from .exchange import Group, all_gather, gathered

_IGNORED_EVERYWHERE = -(2**63)  # a target that is no item, whatever each rank's ignore_index is


def is_read(tensor: Tensor) -> bool:
    """Whether the host may read values, without waiting for a GPU or ending a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_alike(argument: str, number: int, expected: str, group: Group) -> None:
    """Raise, on all ranks, where they don't have one number."""
    numbers = all_gather(torch.tensor([number]), group).flatten().tolist()
    if len(set(numbers)) > 1:
        raise ArgumentValueError(argument, expected, numbers)


def rows_of_each(num_rows: int, catalog: CatalogShard, like: Tensor) -> int:
    """How many rows every rank's call has, with what fills it up; on a CPU it raises where ranks differ."""
    if catalog.max_rows is not None:
        if num_rows > catalog.max_rows:
            raise ArgumentValueError("input", f"at most max_rows = {catalog.max_rows} rows", num_rows)
        return catalog.max_rows
    if is_read(like):
        check_alike("input", num_rows, "equally many rows on all ranks, or a catalog with max_rows", catalog.group)
    return num_rows


def rows_of_all(rows: Tensor, num_rows: int, catalog: CatalogShard, fill: int = 0) -> Tensor:
    """(P num_rows, ...) all ranks' rows, of each filled up to ``num_rows``; differentiable."""
    filled = pad(rows, (0, 0) * (rows.ndim - 1) + (0, num_rows - len(rows)), value=fill)
    of_ranks = gathered(filled, catalog.group) if rows.is_floating_point() else all_gather(filled, catalog.group)
    return of_ranks.flatten(0, 1)


def target_places(target: Tensor, counted: Tensor, num_rows: int, catalog: CatalogShard) -> Tensor:
    """(P num_rows,) int64 where in this rank's shard the targets of all ranks' rows are, ELSEWHERE, IGNORED, or behind
    it for what is no item; on a CPU such a one raises, on all ranks. ``target`` (N,) int64 is this rank's own."""
    shard, given = catalog.shard, torch.where(counted, target, _IGNORED_EVERYWHERE)
    every = rows_of_all(given, num_rows, catalog, _IGNORED_EVERYWHERE)
    is_item = (every >= 0) & (every < shard.num_items)
    if is_read(target):
        wrong = every[~is_item & (every != _IGNORED_EVERYWHERE)]
        if wrong.numel():
            raise ArgumentValueError("target", f"ignore_index or an item in [0, {shard.num_items})", int(wrong[0]))
    place = torch.where(is_item, places_in(every, shard, ELSEWHERE), shard.size)
    return torch.where(every == _IGNORED_EVERYWHERE, IGNORED, place)


def places_in(items: Tensor, shard: Shard, other: int) -> Tensor:
    """Where in a shard items are, ``other`` of those that it does not have."""
    return torch.where(items % shard.num_shards == shard.index, items // shard.num_shards, other)


def owners(target: Tensor, counted: Tensor, shard: Shard) -> Tensor:
    """Which rank has each target; -1 of rows to leave out."""
    return torch.where(counted, target % shard.num_shards, -1)
