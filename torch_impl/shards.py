"""Tensors of which each rank has the rows of its part of the items: whole ones in files."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..kernels.draws.shard import Shard
from ..recsys.run.mapped_rows import MappedRows
from ..recsys.run.table_shards import mapped_rows_of_shard, rows_of_shard, whole
from ..recsys.run.tensor_file import Stored
from .stored import fill, stored, to_numpy


def whole_shape(tensor: Tensor, shard: Shard | None) -> tuple[int, ...]:
    """That of the tensor of all items."""
    return tuple(tensor.shape) if shard is None else (shard.num_items, *tensor.shape[1:])


def fill_shard(tensor: Tensor, source: Stored | MappedRows, shard: Shard | None) -> None:
    """Copies the rows that are this rank's of a whole ``source`` into ``tensor``, as `fill` does."""
    if shard is not None:
        of_shard = mapped_rows_of_shard if isinstance(source, MappedRows) else rows_of_shard
        source = of_shard(source, shard.index, shard.num_shards)  # type: ignore[operator]
    fill(tensor, source)


def stored_whole(tensor: Tensor, shard: Shard | None) -> Stored:
    """The tensor of all items, whose pieces all ranks ask for together; the first rank gets them, others none."""
    if shard is None:
        return stored(tensor)
    shape, dtype = whole_shape(tensor, shard), str(tensor.dtype).removeprefix("torch.")

    def rows_of_ranks(first: int, end: int) -> list[np.ndarray]:
        own = tensor.detach()[first:end]
        if missing := end - first - len(own):
            own = torch.cat([own, own.new_zeros(missing, *own.shape[1:])])
        return [to_numpy(rows) for rows in _gathered_by_first(own, shard)]

    return whole(dtype, shape, shard.num_shards, rows_of_ranks)


def _gathered_by_first(own: Tensor, shard: Shard) -> list[Tensor]:
    """All ranks' tensors of one shape, for the first; none for others."""
    with torch.cuda.device_of(own):  # of a thread
        sent = own.contiguous().view(-1).view(torch.uint8)  # gloo does not know every dtype
        received = [torch.empty_like(sent) for _ in range(shard.num_shards)] if shard.index == 0 else None
        dist.gather(sent, received)
        if own.is_cuda:  # NCCL counts from the call: pieces that wait for the first rank's disk would time out
            torch.cuda.current_stream().synchronize()
        return [each.view(own.dtype).view(own.shape) for each in received or []]
