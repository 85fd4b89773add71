"""Rankings that several devices share: each has a part of the batches, or of the item table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...kernels.numbers import ceil_div
from ..models.parts import Graph
from ..ranks import AXIS, OF_ALL, cut_on_mesh, specs_of
from .batch_ranking import Batches, rank_batches
from .sharded_ranking import rank_batches_on_shards


@dataclass(frozen=True)
class Spread:
    """The devices of a ``mesh`` that rank together. Each ranks its part of the batches; where they share the item
    table, which ``is_sharded``, each ranks its own items for all of them."""

    mesh: Mesh
    is_sharded: bool

    @property
    def batches_at_once(self) -> int:
        """Of which a portion holds a multiple."""
        return 1 if self.is_sharded else self.mesh.size

    @property
    def of_batches(self) -> P:
        return OF_ALL if self.is_sharded else P(AXIS)

    @property
    def of_counts(self) -> P:
        return P(None, AXIS) if self.is_sharded else OF_ALL

    def start_counts(self, num_cutoffs: int, num_items: int) -> Array:
        """Zeros (cutoffs, V), where items are sharded (cutoffs, P ceil(V / P)) as the table's rows."""
        like = self.counts_of(num_cutoffs, num_items)
        return jnp.zeros(like.shape, like.dtype, device=like.sharding)

    def counts_of(self, num_cutoffs: int, num_items: int) -> jax.ShapeDtypeStruct:
        """Their shape, dtype and place."""
        size = self.mesh.size * ceil_div(num_items, self.mesh.size) if self.is_sharded else num_items
        sharding = NamedSharding(self.mesh, self.of_counts)
        return jax.ShapeDtypeStruct((num_cutoffs, size), jnp.int32, sharding=sharding)

    def whole_counts(self, counts: npt.NDArray[np.int32], num_items: int) -> npt.NDArray[np.int32]:
        """(cutoffs, V) in the items' order."""
        if not self.is_sharded:
            return counts
        of_parts = counts.reshape(len(counts), self.mesh.size, -1)
        return of_parts.swapaxes(1, 2).reshape(len(counts), -1)[:, :num_items]

    def placed(self, batches: Batches) -> Batches:
        """Where they are ranked."""
        return cut_on_mesh(batches, self.mesh, self.of_batches)

    def shapes_of(self, batches: Batches) -> Batches:
        """Of batches that are `placed`."""
        place = NamedSharding(self.mesh, self.of_batches)
        return jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=place), batches)


@partial(jax.jit, static_argnames=("graph", "cutoffs", "num_items", "spread"), donate_argnames="counts")
def rank_and_count_on_mesh(
    graph: Graph,
    parameters: Any,
    constants: Any,
    counts: Array,
    batches: Batches,
    *,
    cutoffs: tuple[int, ...],
    num_items: int,
    spread: Spread,
) -> tuple[Array, Array]:
    """``counts`` with the lists of batches, and the ranks (batches, B) of their targets."""

    def of_one(parameters: Any, constants: Any, counts: Array, batches: Batches) -> tuple[Array, Array]:
        model = graph, parameters, constants
        if spread.is_sharded:
            return rank_batches_on_shards(*model, counts, batches, cutoffs=cutoffs, num_items=num_items)
        own, ranks = rank_batches(*model, None, jnp.zeros_like(counts), batches, cutoffs=cutoffs, chunk=None)
        return counts + jax.lax.psum(own, AXIS), ranks

    of_model = (specs_of(tree, is_sharded=spread.is_sharded) for tree in (parameters, constants))
    shared = jax.shard_map(
        of_one, mesh=spread.mesh, in_specs=(*of_model, spread.of_counts, spread.of_batches),
        out_specs=(spread.of_counts, spread.of_batches), check_vma=False,
    )  # fmt: skip
    return shared(parameters, constants, counts, batches)
