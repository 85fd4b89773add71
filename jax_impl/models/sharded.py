"""A model whose item table the devices of a mesh share."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from ...kernels.numbers import ceil_div
from ...recsys.run.model_config import ModelConfig
from ..ranks import AXIS, OF_ALL, OF_ITEMS
from . import build_model
from .sequence_model import ItemFeatures, SequenceModel, start_table


def build_sharded_model(config: ModelConfig, mesh: Mesh, *, seed: int, dtype: DTypeLike = jnp.float32) -> SequenceModel:
    """`build_model` with ``nnx.Rngs(seed)``, whose item table and features are made in parts on the devices of
    ``mesh``, as a `CatalogShard` cuts them: no device has them all, and the table's numbers are each part's own.

    Both have P ceil(V / P) rows, of which the last ones of some parts are no item's.
    """
    model = build_model(replace(config, num_items=1), rngs=nnx.Rngs(seed), dtype=dtype)
    model.config = config
    rows = ceil_div(config.num_items, mesh.size)
    model.item_table = nnx.Param(_start_parts(nnx.Rngs(seed).params(), replace(config, num_items=rows), mesh))
    if config.num_features:
        of_items = NamedSharding(mesh, OF_ITEMS)
        shape = mesh.size * rows, config.num_features
        model.item_features = ItemFeatures(jnp.zeros(shape, jnp.float32, device=of_items))
    return model


@partial(jax.jit, static_argnames=("of_part", "mesh"))
def _start_parts(key: Array, of_part: ModelConfig, mesh: Mesh) -> Array:
    def own(key: Array) -> Array:
        return start_table(jax.random.fold_in(key, jax.lax.axis_index(AXIS)), of_part)

    made: Any = jax.shard_map(own, mesh=mesh, in_specs=OF_ALL, out_specs=OF_ITEMS, check_vma=False)
    return made(key)
