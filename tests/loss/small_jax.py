"""A small problem for tests of the JAX loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cce_minus.jax_impl import UniformNegatives, sampled_linear_cross_entropy
from jax import Array

N, V, D = 24, 50, 8
SAMPLER = UniformNegatives(10, group_size=16)
SEED = 11


def make(rows: tuple[int, ...] = (N,)) -> tuple[Array, Array, Array]:
    """Hidden (*rows, D), table (V, D) and target (*rows), every fifth of them ignored."""
    rng = np.random.default_rng(0)
    hidden, table = rng.standard_normal((*rows, D)), rng.standard_normal((V, D))
    target = rng.integers(0, V, rows)
    target[..., ::5] = -100
    return jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32), jnp.asarray(target, jnp.int32)


HIDDEN, TABLE, TARGET = make()


def loss_of(
    hidden: Any, table: Any, target: Any = TARGET, seed: Any = SEED, negatives: Any = SAMPLER, **options: Any
) -> Array:
    """The loss's sum through the reference, unless other options are given."""
    options = {"reduction": "sum", "impl": "reference"} | options
    loss = sampled_linear_cross_entropy(hidden, table, target, negatives, seed=seed, **options)
    assert isinstance(loss, Array)
    return loss


def assert_same(actual: Any, expected: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), actual, expected)
