"""The torch side of the bridge: views of XLA's buffers, and the state a launcher runs under."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

DLPACK_CPU = 1  # of dlpack's DLDeviceType

# Triton's interpreter, which runs kernels on the CPU, is not thread-safe; XLA calls from several threads.
_cpu_lock = threading.Lock()


def _view(buffer: Any, order: Mapping[str, int]) -> Tensor:
    # of a capsule torch asks nothing; of a buffer it would look for the device and its stream, each time
    view = torch.from_dlpack(buffer.__dlpack__(**order))
    # XLA's empty buffers may have the address of another, which torch and Triton take for the same storage
    return view if view.numel() else view.new_empty(view.shape)


def _views(buffers: Mapping[str, Any], order: Mapping[str, int]) -> dict[str, Tensor]:
    return {name: _view(buffer, order) for name, buffer in buffers.items()}


def launch_on_views(
    launcher: Callable[[dict[str, Tensor], dict[str, Tensor], Hashable], None],
    outs: Mapping[str, Any],
    ins: Mapping[str, Any],
    static: Hashable,
    context: Any,
) -> None:
    """Run ``launcher`` on views of the buffers (``buffer_callback.Buffer``), under the stream of its
    ``ExecutionContext``."""
    kind, index = next(iter((outs or ins).values())).__dlpack_device__()
    with torch.no_grad():  # XLA's threads have torch's defaults
        if kind == DLPACK_CPU:
            with _cpu_lock:
                launcher(_views(outs, {}), _views(ins, {}), static)
            return
        stream = context.stream
        order = {"stream": stream}  # what the views are ordered after, so that nothing waits
        with torch.cuda.device(index):
            # torch.cuda.stream would do the same, in three times the host time
            before = torch.cuda.current_stream()
            torch.cuda.set_stream(_stream(stream, index))
            try:
                launcher(_views(outs, order), _views(ins, order), static)
            finally:
                torch.cuda.set_stream(before)


@functools.lru_cache(maxsize=64)
def _stream(address: int, index: int) -> torch.cuda.Stream:
    return torch.cuda.ExternalStream(address, index)


@functools.cache
def numbers_of_gpu(index: int) -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(index)
    return properties.multi_processor_count, 10 * properties.major + properties.minor
