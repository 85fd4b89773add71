"""The JAX loss's seeds, and that it draws what ``negative_ids`` says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import AllItems, ArgumentError, UniformNegatives, negative_ids, sampled_linear_cross_entropy
from jax import Array

from tests.loss.small_jax import HIDDEN, SEED, TABLE, V, assert_same, loss_of


@pytest.fixture(scope="module")
def truth() -> Array:
    return loss_of(HIDDEN, TABLE)


@pytest.mark.parametrize(
    "seed",
    [
        np.int64(SEED),
        jnp.int32(SEED),
        jnp.array([SEED]),
        jnp.array([0, SEED], jnp.uint32),
        SEED + 2**64,
        jax.random.key(SEED),
        jax.random.PRNGKey(SEED),
    ],
    ids=lambda seed: str(getattr(seed, "dtype", "int")) + str(getattr(seed, "shape", "")),
)
def test_seeds_of_every_form(seed: Any, truth):
    assert_same(loss_of(HIDDEN, TABLE, seed=seed), truth)


def test_negative_and_wide_seeds():
    for value in (-3, jnp.int32(-3), np.int64(-3), jnp.array([2**32 - 1, 2**32 - 3], jnp.uint32)):
        assert_same(loss_of(HIDDEN, TABLE, seed=value), loss_of(HIDDEN, TABLE, seed=2**64 - 3))
    wide = jax.random.key(3, impl="rbg")
    assert float(loss_of(HIDDEN, TABLE, seed=wide)) != float(loss_of(HIDDEN, TABLE, seed=jax.random.key_data(wide)[:2]))


@pytest.mark.parametrize(
    "seed", [None, 0.5, jnp.float32(1), jnp.arange(3), jax.random.split(jax.random.key(0), 2), "1"], ids=repr
)
def test_other_seeds_raise(seed: Any):
    with pytest.raises(ArgumentError, match=r"^seed: expected"):
        loss_of(HIDDEN, TABLE, seed=seed)


def test_no_seed_where_nothing_is_drawn():
    for negatives in (AllItems(), UniformNegatives(V), jnp.arange(5)):
        assert np.isfinite(loss_of(HIDDEN, TABLE, negatives=negatives, seed=None))


@pytest.mark.parametrize(
    "sampler",
    [UniformNegatives(20), UniformNegatives(70, 16), UniformNegatives(20, 1), UniformNegatives(200, 1)],
    ids=str,
)
def test_draws_are_negative_ids(sampler: UniformNegatives):
    """The items with a gradient, one row at a time, are those of ``negative_ids``."""
    items, rows = 301, 40
    target = np.full(rows, 0)
    target[[3, 8]] = -100
    drawn = negative_ids(sampler, num_rows=rows - 2, num_items=items, seed=SEED)

    def row_losses(table: Array) -> Array:
        return sampled_linear_cross_entropy(
            jnp.ones((rows, 1)),
            table,
            target,
            sampler,
            seed=SEED,
            reduction="none",
            impl="reference",
            remove_accidental_hits=False,
        )  # type: ignore[return-value]

    _, gradient = jax.vjp(row_losses, jnp.zeros((items, 1)))
    for place in (0, 5, rows - 3):
        row = np.flatnonzero(target == 0)[place]
        touched = np.flatnonzero(gradient(jnp.zeros(rows).at[row].set(1.0))[0])
        assert set(touched) | {0} == set(drawn[place]) | {0}
