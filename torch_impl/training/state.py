"""The state of a training as arrays by name: copied while later steps go on, written, and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...kernels.draws.shard import Shard
from ...recsys.run.checkpoint_file import NAME, read_checkpoint, require_arrays
from ...recsys.run.progress import Progress
from ...recsys.run.recorder import Snapshot, is_too_large_to_copy
from ...recsys.run.run_directory import RunDirectory
from ...recsys.run.tensor_file import Stored, take_part
from ...recsys.run.warm_start import WarmStart
from ...recsys.run.weights_file import write_weights
from ..devices import memory
from ..models.weights import shard_of as of_model
from ..ranks import Ranks
from ..shards import fill_shard, stored_whole, whole_shape
from ..stored import stored
from .earlier import NAME as EARLIER_NAME
from .earlier import read_earlier
from .steps import TrainingSteps


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


def shard_of(steps: TrainingSteps, name: str) -> Shard | None:
    """The part of the items whose rows one of `tensors_of` has; None where it has all that there are."""
    kind, _, of = name.partition("/")
    return steps.model.shard if of == "item_table" or (kind == "optimizer" and of in _OF_ROWS) else None


_OF_ROWS = ("first/item_table", "second/item_table")


@torch.no_grad()
def restore(steps: TrainingSteps, run: RunDirectory) -> Progress:
    """Takes up the last checkpoint of ``run``; without one, new ``Progress``. Raises ``ConfigError``."""
    tensors = tensors_of(steps)
    shapes = {
        name: (whole_shape(tensor, shard_of(steps, name)), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in tensors.items()
    }
    path = run.checkpoints / NAME
    if path.exists():
        found, progress = read_checkpoint(path)
    elif (path := run.checkpoints / EARLIER_NAME).exists():
        found, progress = read_earlier(path, steps.parameters)
    else:
        return Progress()
    require_arrays(path, found, shapes)
    for name, tensor in tensors.items():
        fill_shard(tensor, found[name], shard_of(steps, name))
    return progress


def start_optimizer(steps: TrainingSteps, start: WarmStart) -> bool:
    """Takes up the optimizer's state of an earlier run, and says whether it fits; raises ``ConfigError`` for a
    checkpoint that cannot be read."""
    tensors = {name: tensor for name, tensor in tensors_of(steps).items() if name.startswith("optimizer/")}
    shapes = {name: whole_shape(tensor, shard_of(steps, name)) for name, tensor in tensors.items()}
    parameters = {name: name.split("/", 2)[2] for name in tensors}
    state = start.optimizer_state("torch", shapes, parameters)
    for name, source in state.items():
        fill_shard(tensors[name], source, shard_of(steps, name))
    return bool(state)


def shared_snapshot(steps: TrainingSteps, ranks: Ranks) -> Snapshot:
    """The state as it is while no step is taken, of which the first rank writes what all have: all of them call what it
    has at the same time. There is no copy of a table, and no whole one."""
    model = steps.model

    def whole(tensors: Mapping[str, Tensor], shard_of: Callable[[str], Shard | None]) -> dict[str, Stored]:
        shards = {name: shard_of(name) for name in tensors}
        kept = {name for name, shard in shards.items() if ranks.is_first or shard is not None}
        return {name: stored_whole(tensors[name], shards[name]) for name in sorted(kept)}

    def write(path: Path) -> None:
        weights = whole(model.state_dict(), partial(of_model, model))
        if ranks.is_first:
            write_weights(path, model.config, weights)
        else:
            take_part(weights)

    return Snapshot(write, lambda: whole(tensors_of(steps), partial(shard_of, steps)), is_live=True)


class Copy:
    """A copy of ``tensors`` as they are now, which reaches the host when it is asked for, in any thread.

    There is none of a large state (``is_live``), which leaves the GPU in pieces, before the next step.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._device = next(iter(tensors.values())).device
        size = sum(tensor.nbytes for tensor in tensors.values())
        self.is_live = is_too_large_to_copy(size, memory(self._device))
        self._tensors = dict(tensors) if self.is_live else {name: tensor.clone() for name, tensor in tensors.items()}
        self._done: torch.cuda.Event | None = None
        if self._device.type == "cuda" and not self.is_live:
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(self._device))

    def tensors(self) -> dict[str, Stored]:
        """What is to be written, by name."""
        if self._done is not None:
            self._tensors, self._done = self._on_host(self._done), None
        return {name: stored(tensor) for name, tensor in self._tensors.items()}

    def _on_host(self, done: torch.cuda.Event) -> dict[str, Tensor]:
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.Stream()) as _:
            stream = torch.cuda.current_stream()
            stream.wait_event(done)  # and not for the steps that came since
            # a non-blocking copy to the host is one to pinned memory
            on_host = {name: tensor.to("cpu", non_blocking=True) for name, tensor in self._tensors.items()}
            stream.synchronize()
        return on_host
