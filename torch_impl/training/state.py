"""The state of a training as arrays by name: copied while later steps go on, written, and taken up again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...recsys.run.checkpoint_file import NAME, read_checkpoint, require_arrays
from ...recsys.run.progress import Progress
from ...recsys.run.run_directory import RunDirectory
from .earlier import NAME as EARLIER_NAME
from .earlier import read_earlier
from .steps import TrainingSteps

logger = logging.getLogger(__name__)

_SMALL = 8
"""A state of at most this part of a GPU's memory is copied there first, and leaves it while training goes on;
three copies may wait."""


def tensors_of(steps: TrainingSteps) -> dict[str, Tensor]:
    """What training goes on from, by name: ``model/..``, ``optimizer/<state>/..``, ``average/..``, ``frequencies``."""
    tensors = {f"model/{name}": parameter.detach() for name, parameter in steps.parameters.items()}
    for name, parameter in steps.parameters.items():
        state = steps.optimizer.state[parameter]
        tensors |= {f"optimizer/{key}/{name}": value for key, value in state.items() if isinstance(value, Tensor)}
    if steps.items is not None:
        tensors |= {f"optimizer/{key}/item_table": value for key, value in steps.items.state.items()}
    tensors |= {f"average/{name}": average for name, average in steps.averages.items()}
    if steps.frequencies is not None:
        tensors["frequencies"] = steps.frequencies
    return tensors


@torch.no_grad()
def restore(steps: TrainingSteps, run: RunDirectory) -> Progress:
    """Takes up the last checkpoint of ``run``; without one, new ``Progress``. Raises ``ConfigError``."""
    tensors = tensors_of(steps)
    shapes = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
    path = run.checkpoints / NAME
    if path.exists():
        arrays, progress = read_checkpoint(path)
    elif (path := run.checkpoints / EARLIER_NAME).exists():
        arrays, progress = read_earlier(path, steps.parameters)
    else:
        return Progress()
    require_arrays(path, arrays, shapes)
    for name, tensor in tensors.items():
        tensor.copy_(torch.from_numpy(arrays[name]))
    return progress


class Copy:
    """A copy of ``tensors`` as they are now, which reaches the host when `arrays` asks for it, in any thread."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._device = next(iter(tensors.values())).device
        self._arrays: dict[str, np.ndarray] | None = None
        self._done: torch.cuda.Event | None = None
        size = sum(tensor.nbytes for tensor in tensors.values())
        on_gpu = self._device.type == "cuda"
        if on_gpu and size > torch.cuda.get_device_properties(self._device).total_memory // _SMALL:
            began = time.perf_counter()
            self._arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
            seconds = time.perf_counter() - began
            logger.info("training paused for %.1f s, in which %.1f GiB left the GPU", seconds, size / 2**30)
            return
        self._tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        if on_gpu:
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(self._device))

    def arrays(self) -> dict[str, np.ndarray]:
        """The copies as NumPy arrays."""
        if self._arrays is None:
            self._arrays = {name: tensor.numpy() for name, tensor in self._on_host().items()}
            del self._tensors
        return self._arrays

    def _on_host(self) -> dict[str, Tensor]:
        if self._done is None:
            return self._tensors
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.Stream()) as _:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._done)  # and not for the steps that came since
            # a non-blocking copy to the host is one to pinned memory
            on_host = {name: tensor.to("cpu", non_blocking=True) for name, tensor in self._tensors.items()}
            stream.synchronize()
        return on_host
