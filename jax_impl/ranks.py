"""The devices that train together: a mesh of one axis, on which each takes its part of every batch."""

from __future__ import annotations

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
OF_EACH, OF_ALL = P(None, None, AXIS), P()
"""How operands of steps (U, A, B, ..) are cut, and what every device has."""


def mesh_of(config: TrainConfig) -> Mesh | None:
    """The mesh of ``config.devices``, None of one. Raises ``ConfigError`` where this host has fewer."""
    if config.devices == 1:
        return None
    (default,) = jnp.zeros(()).devices()  # which has the model, and evaluates
    present = [default, *(each for each in jax.local_devices(backend=default.platform) if each != default)]
    if len(present) < config.devices:
        raise ConfigError(f"devices: expected at most {len(present)}, those of this host, got {config.devices}")
    return Mesh(np.array(present[: config.devices]), (AXIS,), axis_types=(AxisType.Auto,))


def on_all(tree: Any, mesh: Mesh) -> Any:
    """The arrays on every device; those that are there stay."""
    return jax.device_put(tree, NamedSharding(mesh, OF_ALL))


def on_first(tree: Any) -> Any:
    """What the first device has of arrays `on_all`, without a copy."""
    return jax.tree.map(lambda array: array.addressable_shards[0].data, tree)


def rows_of_ranks(steps: Steps, number: int) -> Steps:
    """``steps`` whose batches' rows are each rank's, one rank's behind the other's."""
    return steps.with_batches(
        lambda name: np.concatenate([steps.part(name, index, number) for index in range(number)], axis=2)
    )


def seeds_of_ranks(seeds: np.ndarray, number: int) -> np.ndarray:
    """(n, ranks) uint64 of ``seeds`` (n,): each has draws of its own."""
    return np.array([[fold_seed(int(seed), index) for index in range(number)] for seed in seeds], np.uint64)
