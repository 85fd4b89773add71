"""Sums whose order XLA's compiler for GPUs does not choose, and that the JAX loss leaves it no other."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import PopularityNegatives, UniformNegatives, sampled_linear_binary_cross_entropy
from cce_minus.jax_impl.loss.list_operands import of_shard
from cce_minus.jax_impl.loss.sums import sum_of_parts, sum_of_rows
from jax import Array

from tests.loss.small_jax import HIDDEN, SAMPLER, SEED, TABLE, TARGET, N, V, loss_of

WEIGHTS = jnp.linspace(0.5, 2, N)
NEGATIVES = {
    "grouped": SAMPLER,
    "per row": UniformNegatives(4, group_size=1),
    "popularity": PopularityNegatives(np.arange(V) + 1.0, 10, group_size=16),
    "ids": jnp.arange(8, dtype=jnp.int32),
}
FLOAT_SUM = re.compile(r"stablehlo\.reduce\(.*stablehlo\.add.*xf32>, tensor<f32>")


@pytest.mark.parametrize("num", [0, 1, 2, 31, 32, 33, 1024, 1025, 40_000])
def test_sum_of_rows(num: int):
    values = np.random.default_rng(num).standard_normal(num).astype(np.float32)
    error = abs(float(sum_of_rows(jnp.asarray(values))) - math.fsum(values))
    # at most 31 additions a round; each rounds what came before by half a unit in the last place
    assert error <= 31 * max(1, math.log(max(num, 1), 32) + 1) * 2**-24 * np.abs(values).sum()
    np.testing.assert_array_equal(jax.grad(sum_of_rows)(values), np.ones(num))


def test_sum_of_rows_under_vmap_is_that_of_each():
    values = jnp.asarray(np.random.default_rng(0).standard_normal((3, 70)), jnp.float32)
    np.testing.assert_array_equal(jax.vmap(sum_of_rows)(values), [sum_of_rows(each) for each in values])


def test_a_sum_has_the_same_bits_whatever_is_computed_around_it():
    values = jnp.asarray(np.random.default_rng(0).standard_normal(5000), jnp.float32)
    alone = jax.jit(sum_of_rows)(values)
    amid = jax.jit(lambda x: (jnp.cos(x), sum_of_rows(x) * 1.0, x.mean()))(values)
    assert alone == amid[1]


def test_parts_are_added_in_their_order():
    parts = jnp.float32([[1.0], [2**24], [1.0], [-(2**24)]])
    assert float(sum_of_parts(parts)[0]) == 0.0  # 2^24 + 1 rounds to 2^24, twice


def lowered_for_cuda(function: Any, *operands: Array) -> str:
    return jax.jit(function).trace(*operands).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES)
@pytest.mark.parametrize("loss", ["softmax", "binary"])
def test_the_loss_leaves_no_sum_of_floats_to_xla(loss: str, negatives: Any, reduction: str):
    options: dict[str, Any] = {"seed": None if isinstance(negatives, Array) else SEED, "reduction": reduction}

    def objective(hidden: Array, table: Array, weights: Array, scale: Array) -> Array:
        call = partial(loss_of, impl="auto") if loss == "softmax" else binary_loss_of
        return call(hidden, table, negatives=negatives, sample_weight=weights, logit_scale=scale, **options)

    text = lowered_for_cuda(jax.value_and_grad(objective, (0, 1, 2, 3)), HIDDEN, TABLE, WEIGHTS, jnp.float32(2))
    assert "gpu_callback" in text
    assert not FLOAT_SUM.search(text)
    assert FLOAT_SUM.search(lowered_for_cuda(lambda x: x.mean(), WEIGHTS))  # what one would look like


def binary_loss_of(hidden: Array, table: Array, **options: Any) -> Array:
    return sampled_linear_binary_cross_entropy(hidden, table, TARGET, options.pop("negatives"), **options)


def test_a_shards_weights_leave_no_sum_of_floats_to_xla():
    assert not FLOAT_SUM.search(lowered_for_cuda(of_shard, jnp.zeros(V)))
