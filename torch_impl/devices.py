"""The device of a run by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ..recsys import ConfigError
from ..recsys.errors import LowMemoryError
from ..recsys.run.background import in_thread, no_collector
from ..recsys.run.memory_estimate import NEEDED
from .tables.host_memory import HostMemoryError


def device_of(name: str, number: int | None = None) -> torch.device:
    """``cpu``, ``cuda``, or with ``auto`` a GPU where there is one, that of this ``number`` if any; raises
    ``ConfigError`` for others and for a GPU that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu or cuda, got {name}")
    is_there = torch.cuda.is_available() and torch.version.hip is None
    if name == "cuda" and not is_there:
        of = f" (a build for ROCm {torch.version.hip})" if torch.version.hip else ""
        raise ConfigError(f"device: expected one that is present, got cuda without a usable NVIDIA GPU{of}")
    if name == "cpu" or not is_there:
        return torch.device("cpu")
    return torch.device("cuda" if number is None else f"cuda:{number}")


def start_ahead(device: torch.device) -> None:
    """Sets up the GPU, which takes a while at a process's first use of it, in a thread."""
    if device.type == "cuda":
        in_thread(partial(torch.empty, 1, device=device), "start the GPU")


def memory(device: torch.device) -> int:
    """Bytes of the device's memory; of a CPU's no such number is known."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**63


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises `LowMemoryError` where the memory does not hold what the options ask for."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError | HostMemoryError)
        if not is_memory and "can't allocate memory" not in str(error):
            raise
        raise LowMemoryError(f"{NEEDED}, got: {(str(error) or type(error).__name__).splitlines()[0]:.200}") from error


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, of a CPU, on ``device``, without waiting for work before it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@contextmanager
def no_cast_cache() -> Iterator[None]:
    """Without autocast's cache of casts, which would outlive the capture of a CUDA graph that made them."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@contextmanager
def captured(graph: torch.cuda.CUDAGraph) -> Iterator[None]:
    """Records what is done inside in ``graph``; other threads may use the device meanwhile.

    Python's cyclic collector waits: graphs or pinned memory that it gave back inside would end the capture.
    """
    with no_collector(), no_cast_cache(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        yield


def as_graph(*parts: Callable[[], None]) -> Callable[[], None]:
    """What runs ``parts``, captured one after the other as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with captured(graph):  # a thread may copy a checkpoint meanwhile
        for part in parts:
            part()
    return graph.replay
