"""The torch side of the bridge: views of XLA's buffers, and the state a launcher runs under."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Mapping

import torch
from jax.experimental.buffer_callback import Buffer, ExecutionContext
from torch import Tensor

# Triton's interpreter, which runs kernels on the CPU, is not thread-safe; XLA calls from several threads.
_cpu_lock = threading.Lock()


def _views(buffers: Mapping[str, Buffer]) -> dict[str, Tensor]:
    return {name: torch.from_dlpack(buffer) for name, buffer in buffers.items()}


def launch_on_views(
    launcher: Callable[[dict[str, Tensor], dict[str, Tensor], Hashable], None],
    outs: Mapping[str, Buffer],
    ins: Mapping[str, Buffer],
    static: Hashable,
    context: ExecutionContext,
) -> None:
    """Run ``launcher`` on views of the buffers, under XLA's stream and device."""
    tensors, given = _views(outs), _views(ins)
    device = next(iter((tensors or given).values())).device
    with contextlib.ExitStack() as state:
        state.enter_context(torch.no_grad())  # XLA's threads have torch's defaults
        if device.type == "cuda":
            state.enter_context(torch.cuda.device(device))
            state.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(context.stream, device)))
        else:
            state.enter_context(_cpu_lock)
        launcher(tensors, given, static)


@functools.cache
def gpu_multiprocessors() -> int:
    return torch.cuda.get_device_properties(0).multi_processor_count
