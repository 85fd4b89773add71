"""Programs on few tensors: arrays that live alike lie side by side in one, and are handed to the kernels as
addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.launch.programs import ALIGNMENT, Program, Replay
from ...kernels.plan.buffers import Buffer, place
from ...kernels.plan.problem import interprets

LINE = 32  # elements of 4 bytes: arrays begin at lines of the cache


class Pool:
    """Where arrays of 4-byte elements lie in one tensor."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self.buffers = {buffer.name: buffer for buffer in buffers if buffer.size}
        sizes = {name: buffer.size for name, buffer in self.buffers.items()}
        self.first, self.size = place(sizes, LINE)

    def array(self, name: str, tensor: Tensor) -> Tensor:
        """One of the arrays, of the tensor's dtype; empty where there is none."""
        buffer = self.buffers.get(name)
        return tensor[:0] if buffer is None else tensor.narrow(0, self.first[name], buffer.size)


class _Place(NamedTuple):
    """An array: all of a call's tensor of that number, or the elements of it from ``first`` on, as ``dtype``."""

    tensor: int
    dtype: torch.dtype
    first: int = 0
    size: int | None = None

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        tensor = tensors[self.tensor]
        part = tensor if self.size is None else tensor.narrow(0, self.first, self.size)
        return part if part.dtype == self.dtype else part.view(self.dtype)


class PooledProgram:
    """A program on tensors in a given order, each an array of a dtype or a pool of arrays."""

    def __init__(self, program: Program, tensors: Mapping[str, torch.dtype | Pool]) -> None:
        places: dict[str, _Place] = {}
        for number, (name, kind) in enumerate(tensors.items()):
            if isinstance(kind, Pool):
                for part, buffer in kind.buffers.items():
                    places[part] = _Place(number, getattr(torch, buffer.dtype), kind.first[part], buffer.size)
            else:
                places[name] = _Place(number, kind)
        self._program = program
        self._places = {name: places[name] for name in program.names}
        self._replays: dict[int, Replay] = {}
        self._interprets = interprets()

    def run(self, tensors: Sequence[Tensor]) -> None:
        """Launch on the current device and stream."""
        addresses, bits = [], 0
        for tensor in tensors:
            address = tensor.data_ptr()
            addresses.append(address)
            bits |= address
        if self._interprets or bits % ALIGNMENT:
            self._program.run({name: place.of(tensors) for name, place in self._places.items()})
            return
        device = torch.cuda.current_device()
        replay = self._replays.get(device)
        if replay is None:
            dtypes = [place.dtype for place in self._places.values()]
            origins = [(place.tensor, 4 * place.first) for place in self._places.values()]
            replay = self._replays[device] = self._program.replay(dtypes, origins)
        replay.run(addresses)
