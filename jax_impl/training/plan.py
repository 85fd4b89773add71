"""What shapes the program of a training's steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from ...kernels.negatives.objectives import Objective
from ...kernels.plan.row_update import RowRule
from ...recsys import IGNORE
from ..loss.catalog_shard import CatalogShard
from ..models.parts import Graph
from ..ranks import AXIS
from .objective import Loss


@dataclass(frozen=True)
class Plan:
    """The program is compiled once for an equal one."""

    graph: Graph
    optimizer: Any
    objective: Objective
    loss: Loss
    accumulate: int
    length: int
    ema_decay: float
    clip_norm: float
    item_rule: RowRule | None
    item_rate_share: float
    rounding_seed: int
    weighing_targets: float | None
    mesh: Mesh | None
    catalog: CatalogShard | None

    @property
    def is_sharded(self) -> bool:
        """Whether the devices of the mesh share the item table."""
        return self.catalog is not None

    def weight(self, targets: Array) -> Array | float:
        """What the mean loss of a batch, or of a device's part of it, counts: the sum over devices is the batch's."""
        counted, every = (targets != IGNORE).sum(), self.weighing_targets
        if self.mesh is None:
            return 1.0 if every is None else counted / every
        return counted / (every or jnp.maximum(jax.lax.psum(counted, AXIS), 1))

    def gathered(self, rows: Array) -> Array:
        """All devices' rows, one device's behind the other's."""
        return rows if self.mesh is None else jax.lax.all_gather(rows, AXIS, tiled=True)

    def total(self, tree: Any) -> Any:
        """The sum over devices."""
        return tree if self.mesh is None else jax.lax.psum(tree, AXIS)
