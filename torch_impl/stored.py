"""Tensors of a device to files and from them, in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..recsys.run.mapped_rows import MappedRows
from ..recsys.run.tensor_file import Stored, row_ranges


def stored(tensor: Tensor) -> Stored:
    """``tensor`` as it is when its pieces are asked for, on the host."""

    def pieces() -> Iterator[np.ndarray]:
        if not tensor.ndim:
            yield to_numpy(tensor)
            return
        for first, end in row_ranges(tuple(tensor.shape), tensor.itemsize):
            yield to_numpy(tensor[first:end])

    return Stored(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), pieces)


@torch.no_grad()
def fill(tensor: Tensor, source: Stored | MappedRows) -> None:
    """Copies ``source`` into ``tensor``, of the same shape, in its dtype; of mapped rows those that have a place, while
    others stay."""
    if isinstance(source, MappedRows):
        _fill_rows(tensor, source)
        return
    first = 0
    for piece in source.pieces():
        if not tensor.ndim:
            tensor.copy_(_of_numpy(piece, source.dtype))
            return
        tensor[first : first + len(piece)].copy_(_of_numpy(piece, source.dtype))
        first += len(piece)


def _fill_rows(tensor: Tensor, source: MappedRows) -> None:
    for places, rows in source.pieces():
        kept = torch.from_numpy(np.flatnonzero(places >= 0))
        values = _of_numpy(rows, source.dtype).index_select(0, kept)
        target = torch.from_numpy(places).index_select(0, kept).long()
        tensor.index_copy_(0, target.to(tensor.device), values.to(tensor.device, tensor.dtype))


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A copy on the host, of bfloat16 the words."""
    on_host = tensor.detach().cpu().contiguous()
    return on_host.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else on_host.numpy()


def _of_numpy(piece: np.ndarray, dtype: str) -> Tensor:
    if dtype == "bfloat16":
        return torch.from_numpy(piece.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(piece)
