"""The state of a training as arrays by name: copied while later steps go on, written, and taken up again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...recsys.run.checkpoint_file import NAME, read_checkpoint, require_arrays
from ...recsys.run.progress import Progress
from ...recsys.run.recorder import is_too_large_to_copy
from ...recsys.run.run_directory import RunDirectory
from ...recsys.run.tensor_file import Stored
from ...recsys.run.warm_start import WarmStart
from ..devices import memory
from ..models.parts import shape_of
from ..ranks import name_of
from ..stored import asked_for, filled, is_sharded, stored_whole, whole_shape
from .earlier import find_earlier, read_earlier
from .steps import State, TrainingSteps


def restore(steps: TrainingSteps, run: RunDirectory) -> Progress:
    """Takes up the last checkpoint of ``run``; without one, new ``Progress``. Raises ``ConfigError``."""
    named, tree = jax.tree_util.tree_flatten_with_path(steps.state)
    shapes = {name_of(path): (whole_shape(array, steps.num_items), array.dtype.name) for path, array in named}
    path = run.checkpoints / NAME
    if path.exists():
        found, progress = read_checkpoint(path)
    elif (earlier := find_earlier(run.checkpoints)) is not None:
        path = earlier
        found, progress = read_earlier(path)
    else:
        return Progress()
    require_arrays(path, found, shapes)
    wanted = {name_of(path): shape_of(array) for path, array in named}
    del named
    steps.release()  # the old state makes room
    steps.state = jax.tree.unflatten(tree, [filled(shape, found[name]) for name, shape in wanted.items()])
    return progress


def start_optimizer(steps: TrainingSteps, start: WarmStart) -> bool:
    """Takes up the optimizer's state of an earlier run, and says whether it fits; raises ``ConfigError`` for a
    checkpoint that cannot be read."""
    named, tree = jax.tree_util.tree_flatten_with_path(steps.state)
    arrays = {name_of(path): array for path, array in named}
    shapes = {
        name: whole_shape(array, steps.num_items) for name, array in arrays.items() if name.startswith(_OPTIMIZERS)
    }
    # beside an optimizer of the table's own those of the others are numbered
    others = [each for name in arrays if (each := name.removeprefix("parameters/")) not in (name, "item_table")]
    state = start.optimizer_state("jax", shapes, {n: _parameter(n, others) for n in shapes})
    for name, source in state.items():
        arrays[name] = filled(arrays[name], source)
    steps.state = jax.tree.unflatten(tree, list(arrays.values()))
    return bool(state)


_OPTIMIZERS = ("optimizer/", "items/")


def _parameter(state: str, others: list[str]) -> str:
    """That of which the optimizer keeps a ``state``, by the latter's name."""
    if state.startswith("items/"):
        return "item_table"
    parameter = state.split("/", 3)[-1]
    return others[int(parameter)] if parameter.isdecimal() else parameter


class Copy:
    """A copy of the ``state`` of a model of ``num_items`` as it is now, which reaches the host when it is asked for, in
    any thread.

    There is none of a large state, or of an item table that devices share (``is_live``), which leaves the devices in
    pieces, before the next step. A process that does not ``write`` has a part in what another one gathers, and copies
    nothing.
    """

    def __init__(self, state: State, num_items: int, *, writes: bool = True) -> None:
        leaves = jax.tree.leaves(state)
        # the host has no table as a whole
        self.is_live = any(map(is_sharded, leaves)) or is_too_large_to_copy(sum(a.nbytes for a in leaves), memory())
        self._state: Any = state if self.is_live or not writes else _copied(state)
        self._num_items, self._writes = num_items, writes

    def state(self) -> State:
        """The copy in NumPy arrays; a live state as it is."""
        if not self.is_live:
            self._state = jax.device_get(_in_pinned_memory(self._state))
        return self._state

    def tensors(self) -> dict[str, Stored]:
        """The same by name, as far as this process takes part in writing it."""
        named, _ = jax.tree_util.tree_flatten_with_path(self.state() if self._writes else self._state)
        arrays = asked_for({name_of(path): array for path, array in named}, writes=self._writes)
        return {name: stored_whole(array, self._num_items) for name, array in arrays.items()}


def _in_pinned_memory(state: Any) -> Any:
    """``state`` in memory of the host that a GPU writes to by itself; copies to other memory keep it from its steps."""
    if jax.default_backend() != "gpu" or isinstance(jax.tree.leaves(state)[0], np.ndarray):
        return state
    places = jax.tree.map(lambda array: array.sharding.with_memory_kind("pinned_host"), state)
    return jax.block_until_ready(jax.device_put(state, places))


@jax.jit
def _copied(state: State) -> State:
    return jax.tree.map(jnp.copy, state)
