"""Nothing global leaks into the JAX losses: JAX's modes leave values and gradients as they are, bit for bit."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import (
    AllItems,
    ArgumentError,
    HardNegatives,
    History,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    sampled_linear_binary_cross_entropy,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
    update_frequencies,
)
from jax import Array

pytestmark = pytest.mark.usefixtures("compiles_fast")

N, V, D = 10, 20, 4
RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 9, V)


def inputs() -> dict[str, Any]:
    """A call's arrays on the device, every second row ignored or so, an item out of stock."""
    rng = np.random.default_rng(1)
    target = rng.integers(0, V, N)
    target[::4] = -100
    arrays = {
        "hidden": rng.standard_normal((N, D)).astype(np.float32),
        "table": rng.standard_normal((V, D)).astype(np.float32),
        "bias": rng.standard_normal(V).astype(np.float32),
        "weight": rng.uniform(size=N).astype(np.float32),
        "scale": np.float32(0.7),
        "log_q": np.log(np.full(V, 1 / V, np.float32)),
        "target": target.astype(np.int32),
        "ids": rng.integers(-1, V, (N, 3)).astype(np.int32),
        "seed": np.int32(5),
        "history": History(np.zeros(N, np.int32), np.array([0, 2], np.int32), np.array([3, 9], np.int32)),
    }
    return jax.tree.map(jnp.asarray, arrays)


def softmax(x: Any, negatives: Any, **options: Any) -> Array:
    ids = x["ids"] if negatives is None else negatives
    loss = sampled_linear_cross_entropy(
        x["hidden"], x["table"], x["target"], ids, sample_weight=x["weight"], logit_scale=x["scale"], seed=x["seed"],
        linear_bias=x["bias"], **options
    )  # fmt: skip
    assert isinstance(loss, Array)
    return loss


def binary(x: Any) -> Array:
    return sampled_linear_binary_cross_entropy(
        x["hidden"], x["table"], x["target"], UniformNegatives(5, 1), gbce_t=0.5, seed=3, linear_bias=x["bias"],
        history=x["history"], softcap=3.0,
    )  # fmt: skip


def scalable(x: Any, mix_x: bool) -> Array:
    return scalable_linear_cross_entropy(
        x["hidden"], x["table"], x["target"], n_buckets=3, bucket_size_x=3, bucket_size_y=4, seed=1, mix_x=mix_x,
        sample_weight=x["weight"], linear_bias=x["bias"],
    )  # fmt: skip


LOSSES: dict[str, Callable[[Any], Array]] = {
    "full": lambda x: softmax(x, AllItems(), softcap=4.0),
    "uniform": lambda x: softmax(x, UniformNegatives(5, 16), history=x["history"]),
    "popularity": lambda x: softmax(x, PopularityNegatives(COUNTS, 5, group_size=16)),
    "in_batch": lambda x: softmax(x, InBatchNegatives(None), log_q=x["log_q"]),
    "mixed": lambda x: softmax(
        x, MixedNegatives(LogUniformNegatives(4, 16), InBatchNegatives(16)), log_q=x["log_q"], history=x["history"]
    ),
    "hard": lambda x: softmax(x, HardNegatives(10, 4, 16)),
    "ids": lambda x: softmax(x, None, log_q=x["log_q"], softcap=2.0),
    "binary": binary,
    "scalable": lambda x: scalable(x, False),
    "scalable_mixed": lambda x: scalable(x, True),
}


def value_and_grad(loss: Callable[[Any], Array], x: Any) -> Any:
    floats = {name: array for name, array in x.items() if name in ("hidden", "table", "bias", "weight", "scale")}
    return jax.value_and_grad(lambda floats: loss(x | floats))(floats)


@contextlib.contextmanager
def every_mode() -> Iterator[None]:
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.default_matmul_precision("bfloat16"),
        jax.debug_nans(True),
        jax.checking_leaks(),
    ):
        yield


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_modes_change_nothing(loss: Callable[[Any], Array]):
    x = inputs()
    want = value_and_grad(loss, x)
    with every_mode():
        wide = x | {"target": x["target"].astype(jnp.int64), "ids": x["ids"].astype(jnp.int64)}
        got = value_and_grad(loss, wide | {"seed": x["seed"].astype(jnp.int64)})
        assert jax.tree.map(lambda a: a.dtype, got) == jax.tree.map(lambda a: a.dtype, want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_nothing_is_transferred_implicitly(loss: Callable[[Any], Array]):
    """The numbers of the call go to the device by ``device_put``."""
    x = jax.block_until_ready(inputs())
    with jax.transfer_guard("disallow"):
        loss(x)


def test_frequencies_under_every_mode():
    q, target = jnp.full(V, 1 / V, jnp.float32), inputs()["target"]
    want = update_frequencies(q, target, rate=0.1)
    with jax.transfer_guard("disallow"):
        update_frequencies(q, target, rate=0.1)
    with every_mode():
        got = update_frequencies(q, target.astype(jnp.int64), rate=0.1)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ArgumentError, match=r"^ignore_index"):
        update_frequencies(q, target, rate=0.1, ignore_index=2**70)


def test_without_jit():
    x, loss = inputs(), LOSSES["hard"]
    want = value_and_grad(loss, x)
    with jax.disable_jit(), jax.debug_nans(True):
        got = value_and_grad(loss, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_wide_integers_are_not_wrapped():
    """Whether they were made under the mode or are used under it."""
    x = inputs()
    with jax.enable_x64(True):
        target = x["target"].astype(jnp.int64).at[1].set(2**32 + 1)
        ids = x["ids"].astype(jnp.int64).at[2, 0].set(2**32 + 1)
        seed = jnp.int64(2**40 + 5)
    call = partial(sampled_linear_cross_entropy, reduction="none")
    for mode in (False, True):
        with jax.enable_x64(mode):
            loss = jax.jit(call)(x["hidden"], x["table"], target, ids)
            draw = partial(call, x["hidden"], x["table"], x["target"], UniformNegatives(5))
            of_seed = jax.jit(lambda seed, draw=draw: draw(seed=seed))(seed)
        assert np.isnan(loss).nonzero()[0].tolist() == [1, 2], mode
        np.testing.assert_array_equal(of_seed, draw(seed=2**40 + 5))


def test_arrays_of_a_sampler_live_as_long_as_it():
    """No cache holds them, or what a trace or a mode has made."""
    x, count = inputs(), 5003

    def living() -> int:
        gc.collect()
        return sum(array.shape == (count,) for array in jax.live_arrays())

    def call(negatives: Any, table: Array) -> Array:
        return sampled_linear_cross_entropy(x["hidden"], table, x["target"], negatives, seed=1)  # type: ignore

    sampler, table = PopularityNegatives(np.ones(count), 5, group_size=16), jnp.ones((count, D))
    loss = partial(call, sampler)
    with jax.enable_x64(True):
        want = jax.jit(jax.grad(loss))(table)  # traces the first call under a mode
    np.testing.assert_array_equal(jax.grad(loss)(table), want)
    mixed = call(MixedNegatives(sampler, UniformNegatives(5, 16)), table)
    assert living() <= 4, "made once, and one copy as constants of a program"
    gone = weakref.ref(sampler)
    del sampler, loss
    assert gone() is None
    assert living() == 0
    assert np.isfinite(mixed)


def test_arrays_on_another_default_device():
    device = jax.devices()[0]
    with jax.default_device(device):
        assert LOSSES["popularity"](inputs()).devices() == {device}
