"""The devices that train together: a mesh of one axis, on which each takes its part of every batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..kernels import fold_seed
from ..recsys import ConfigError, TrainConfig
from ..recsys.run.steps import Steps

AXIS = "rank"
OF_EACH, OF_ALL, OF_ITEMS = P(None, None, AXIS), P(), P(AXIS)
"""How operands of steps (U, A, B, ..) are cut, what every device has, and how a sharded item table is cut: as a
`CatalogShard` says."""

_OF_ITEMS = ("item_table", "item_features", "items/first", "items/second")
"""Ends of the names of arrays with a row for each item."""


def mesh_of(config: TrainConfig, number: int = 1) -> Mesh | None:
    """The mesh of ``config.devices``, None of one. Of a ``number`` of processes it has all devices, and the option may
    be left out. Raises ``ConfigError`` where this host has fewer, or all processes have another number."""
    (default,) = jnp.zeros(()).devices()  # which has the model, and evaluates
    if number > 1:
        every = jax.devices(default.platform)
        if config.devices not in (1, len(every)):
            raise ConfigError(
                f"devices: expected {len(every)}, those of all {number} processes, or none given, got {config.devices}"
            )
        return Mesh(np.array(every), (AXIS,), axis_types=(AxisType.Auto,))
    if config.devices == 1:
        return None
    present = [default, *(each for each in jax.local_devices(backend=default.platform) if each != default)]
    if len(present) < config.devices:
        raise ConfigError(f"devices: expected at most {len(present)}, those of this host, got {config.devices}")
    return Mesh(np.array(present[: config.devices]), (AXIS,), axis_types=(AxisType.Auto,))


def name_of(path: Any) -> str:
    """An array's name in a state: where in its tree it is."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def specs_of(tree: Any, *, is_sharded: bool) -> Any:
    """How the arrays of a state lie on a mesh: those with a row for each item sharded where the item table
    ``is_sharded``, the others on all devices."""

    def spec(path: Any, _: Any) -> P:
        return OF_ITEMS if is_sharded and name_of(path).endswith(_OF_ITEMS) else OF_ALL

    return jax.tree_util.tree_map_with_path(spec, tree)


def on_mesh(tree: Any, mesh: Mesh, *, is_sharded: bool) -> Any:
    """The arrays as `specs_of` says, of which all processes have the same; those that are there stay."""
    shardings = jax.tree.map(partial(NamedSharding, mesh), specs_of(tree, is_sharded=is_sharded))
    return jax.tree.map(_of_all, tree, shardings) if mesh.is_multi_process else jax.device_put(tree, shardings)


def cut_on_mesh(arrays: Any, mesh: Mesh, specs: Any) -> Any:
    """NumPy arrays, the same on all processes, cut as ``specs`` say, of which there may be one for all: each process
    gives its devices their parts."""
    shardings = jax.tree.map(partial(NamedSharding, mesh), specs)
    if not mesh.is_multi_process:
        return jax.device_put(arrays, shardings)
    if isinstance(specs, P):
        shardings = jax.tree.map(lambda _: shardings, arrays)
    return jax.tree.map(_of_all, arrays, shardings)


def _of_all(array: Any, sharding: NamedSharding) -> Array:
    """On devices of several processes, without the check of `jax.device_put` that all have the same, which is a
    collective for each array."""
    if isinstance(array, Array) and sharding.is_equivalent_to(array.sharding, array.ndim):
        return array
    if not isinstance(array, Array):
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
    assert sharding.is_fully_replicated  # what is cut is made in parts
    copies = [jax.device_put(array, device) for device in sharding.addressable_devices]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)


def on_host(array: Array) -> np.ndarray:
    """All of an ``array`` of the mesh; of one that processes share, all of them ask at the same time."""
    is_here = array.is_fully_addressable or array.is_fully_replicated
    return np.asarray(array) if is_here else multihost_utils.process_allgather(array, tiled=True)


def on_first(tree: Any) -> Any:
    """What the first device of this process has of arrays that all devices have, without a copy."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def rows_of_ranks(steps: Steps, number: int) -> Steps:
    """``steps`` whose batches' rows are each rank's, one rank's behind the other's."""
    return steps.with_batches(
        lambda name: np.concatenate([steps.part(name, index, number) for index in range(number)], axis=2)
    )


def seeds_of_ranks(seeds: np.ndarray, number: int) -> np.ndarray:
    """(n, ranks) uint64 of ``seeds`` (n,): each has draws of its own."""
    return np.array([[fold_seed(int(seed), index) for index in range(number)] for seed in seeds], np.uint64)
