"""This project's loss and its plain counterpart in JAX; all of them run under jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from cce_minus import jax_impl
from cce_minus.kernels import UniformNegatives
from jax import Array

from .provider import Loss, Provider, gathered_bytes
from .providers_torch import every_item, sampler_ids
from .shapes import GROUP, Shape


def xla_loss(hidden: Array, table: Array, target: Array, negatives: int, seed: int | Array) -> Array:
    """The mean of ``xla_rows``."""
    return xla_rows(hidden, table, target, negatives, jax.random.key(seed) if isinstance(seed, int) else seed).mean()


def xla_rows(hidden: Array, table: Array, target: Array, negatives: int, key: Array) -> Array:
    """CE- as one writes it in JAX: uniform ids, gathered rows, hits masked, logsumexp over K + 1 logits; (N,)
    float32."""
    ids = jax.random.randint(key, (len(hidden), negatives), 0, len(table))
    logits = jnp.einsum("nd,nkd->nk", hidden, table[ids], preferred_element_type=jnp.float32)
    hits = ids == target[:, None]
    kept = (~hits).sum(1, keepdims=True)
    logits = jnp.where(hits, -jnp.inf, logits + jnp.log((len(table) - 1) / kept))
    positive = jnp.einsum("nd,nd->n", hidden, table[target], preferred_element_type=jnp.float32)[:, None]
    return jax.nn.logsumexp(jnp.concatenate([positive, logits], 1), axis=1) - positive[:, 0]


def _xla_ids(shape: Shape, seed: int, device: str) -> np.ndarray:
    return np.asarray(jax.random.randint(jax.random.key(seed), (shape.rows, shape.negatives), 0, shape.items))


def _sampled(group_size: int) -> Loss:
    def loss(hidden: Array, table: Array, target: Array, negatives: int, seed: int | Array) -> Array:
        return jax_impl.sampled_linear_cross_entropy(
            hidden, table, target, UniformNegatives(negatives, group_size), seed=seed
        )

    return loss


def _all_items(hidden: Array, table: Array, target: Array, negatives: int, seed: int | Array) -> Array:
    return jax_impl.linear_cross_entropy(hidden, table, target)


def jax_providers() -> list[Provider]:
    return [
        Provider("cce-minus grouped (JAX)", "jax", False, _sampled(GROUP), sampler_ids(GROUP), ours=True),
        Provider("cce-minus independent (JAX)", "jax", False, _sampled(1), sampler_ids(1), ours=True),
        Provider("cce-minus all items (JAX)", "jax", True, _all_items, every_item, ours=True),
        Provider("XLA", "jax", False, xla_loss, _xla_ids, least_extra=gathered_bytes),
    ]
