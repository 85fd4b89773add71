"""The devices that train together: a mesh of one axis, on which each takes its part of every batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def mesh_of(config: TrainConfig) -> Mesh | None:
    """The mesh of ``config.devices``, None of one. Raises ``ConfigError`` where this host has fewer."""
    if config.devices == 1:
        return None
    (default,) = jnp.zeros(()).devices()  # which has the model, and evaluates
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
    """The arrays as `specs_of` says; those that are there stay."""
    shardings = jax.tree.map(partial(NamedSharding, mesh), specs_of(tree, is_sharded=is_sharded))
    return jax.device_put(tree, shardings)


def on_first(tree: Any) -> Any:
    """What the first device has of arrays that all devices have, without a copy."""
    return jax.tree.map(lambda array: array.addressable_shards[0].data, tree)


def rows_of_ranks(steps: Steps, number: int) -> Steps:
    """``steps`` whose batches' rows are each rank's, one rank's behind the other's."""
    return steps.with_batches(
        lambda name: np.concatenate([steps.part(name, index, number) for index in range(number)], axis=2)
    )


def seeds_of_ranks(seeds: np.ndarray, number: int) -> np.ndarray:
    """(n, ranks) uint64 of ``seeds`` (n,): each has draws of its own."""
    return np.array([[fold_seed(int(seed), index) for index in range(number)] for seed in seeds], np.uint64)
