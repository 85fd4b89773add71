"""Tensors of a GPU in the host's memory, for tables that the GPU's own does not hold."""

from __future__ import annotations

import contextlib
import gc
import math
import mmap
import weakref
from typing import Any

import torch
from torch import Tensor

_MAPPED = 1 | 2  # cudaHostRegisterPortable, cudaHostRegisterMapped


class HostMemoryError(RuntimeError):
    """The host has no such memory, or the driver does not lend it to the GPU."""


class _Lent:
    """Memory of the host that GPUs read and write over the bus, as long as this is there; described as NumPy-like
    libraries describe a GPU's (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html)."""

    def __init__(self, size: int, device: torch.device) -> None:
        try:
            memory = _pages(size)
        except OSError as error:
            raise HostMemoryError(f"{size / 2**30:.1f} GiB of the host's memory: {error}") from error
        runtime: Any = torch.cuda.cudart()
        status = runtime.cudaHostRegister(memory.data_ptr(), size, _MAPPED)
        if int(status):
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=device)  # takes up the error, which the next kernel's launch would report
            raise HostMemoryError(f"cudaHostRegister of {size / 2**30:.1f} GiB: {status}")
        weakref.finalize(self, _give_back, memory, device).atexit = False  # the driver sees to it
        self.__cuda_array_interface__ = {
            "shape": (size,), "typestr": "|u1", "data": (memory.data_ptr(), False), "version": 3, "strides": None,
        }  # fmt: skip


def _pages(size: int) -> Tensor:
    """Memory of the host, in huge pages where there are such: of 4 KiB each row of a large table has its own, which
    takes long to find."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            area.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(area, dtype=torch.uint8)


def _give_back(memory: Tensor, device: torch.device) -> None:
    runtime: Any = torch.cuda.cudart()
    try:
        torch.cuda.synchronize(device)  # kernels may still read it
    finally:
        runtime.cudaHostUnregister(memory.data_ptr())


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor of ``device`` in pinned memory of the host; kernels take it as any of the GPU's, at the
    speed of the bus. On a CPU, whose memory it is, a tensor as any.

    Raises ``HostMemoryError`` where the driver refuses so much.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cuda" or not size:
        return torch.empty(shape, dtype=dtype, device=device)
    gc.collect()  # what an earlier run's cycles of references still hold
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # the context is there
        return torch.as_tensor(_Lent(size, device), device=device).view(dtype).view(shape)


def device_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same in the device's own memory."""
    return torch.empty(shape, dtype=dtype, device=device)
