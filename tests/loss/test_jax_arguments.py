"""The JAX loss's arguments at their edges: malformed, out of range, empty, wide integers, the whole catalog."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import ArgumentError, History, linear_cross_entropy, sampled_linear_cross_entropy
from jax import Array

from tests.loss.small_jax import HIDDEN, SEED, TABLE, TARGET, D, N, V, assert_same, loss_of


def test_full_catalog_is_cross_entropy():
    loss = linear_cross_entropy(HIDDEN, TABLE, TARGET, reduction="none")
    logits = jnp.matmul(HIDDEN, TABLE.T, precision="highest")
    plain = jax.nn.logsumexp(logits, 1) - jnp.take_along_axis(logits, jnp.maximum(TARGET, 0)[:, None], 1)[:, 0]
    assert_same(loss, jnp.where(TARGET == -100, 0.0, plain))


def test_empty_batch():
    for reduction, shape in (("mean", ()), ("none", (0, 4))):
        loss = partial(loss_of, table=TABLE, target=jnp.zeros((0, 4), int), reduction=reduction)
        value, back = jax.vjp(loss, jnp.zeros((0, 4, D)))
        assert value.shape == shape
        assert not value.any()
        assert back(value)[0].shape == (0, 4, D)


def test_an_empty_batch_has_gradients_of_zero():
    def loss(*shared: Array) -> Array:
        table, bias, scale = shared
        hidden, target = jnp.zeros((0, D)), jnp.zeros(0, int)
        return loss_of(hidden, table, target, linear_bias=bias, logit_scale=scale, reduction="mean")

    shared = TABLE, jnp.ones(V), jnp.ones(1)
    for gradient, array in zip(jax.grad(loss, (0, 1, 2))(*shared), shared, strict=True):
        assert gradient.shape == array.shape
        assert not gradient.any()


def test_targets_of_every_dtype():
    weight = jnp.linspace(0.0, 1.0, N)
    want = loss_of(HIDDEN, TABLE, sample_weight=weight)
    for dtype in ("int32", "int16", "int8"):
        assert_same(loss_of(HIDDEN, TABLE, TARGET.astype(dtype), sample_weight=weight), want)
    unsigned = jnp.where(TARGET < 0, 255, TARGET).astype(jnp.uint8)
    assert_same(loss_of(HIDDEN, TABLE, unsigned, sample_weight=weight, ignore_index=255), want)
    items = jnp.where(unsigned == 255, 0, unsigned)  # -100 is no uint8: every row counts
    every = loss_of(HIDDEN, TABLE, items, reduction="none", negatives=jnp.arange(5), seed=None)
    assert bool((every != 0).all())


def test_out_of_range_raises_outside_jit_and_is_nan_inside():
    for target, ids in ((V, 3), (-1, 3), (2, V), (2, -2)):
        arguments = HIDDEN[:2], TABLE, np.array([target, 1]), np.array([[ids, 4], [3, 4]])
        call = partial(sampled_linear_cross_entropy, reduction="none", impl="reference")
        with pytest.raises(ArgumentError, match="target" if ids == 3 else "negatives"):
            call(*arguments)
        loss = jax.jit(call)(*arguments)
        assert np.isnan(loss).tolist() == [True, False]


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("input", {"hidden": np.zeros((N, D))}),
        ("input", {"hidden": [[1.0]]}),
        ("linear_weight", {"table": TABLE[:, :3]}),
        ("target", {"target": TARGET[:3]}),
        ("target", {"target": TARGET.astype(jnp.float32)}),
        ("negatives", {"negatives": jnp.zeros((3, 4), int)}),
        ("negatives", {"hidden": HIDDEN[0], "target": TARGET[1], "negatives": jnp.array(3)}),
        ("negatives", {"negatives": 5}),
        ("linear_bias", {"linear_bias": jnp.zeros(3)}),
        ("sample_weight", {"sample_weight": jnp.zeros(3)}),
        ("ignore_index", {"ignore_index": 2**31}),
        ("ignore_index", {"ignore_index": 2**70}),
        ("reduction", {"reduction": "max"}),
        ("logit_scale", {"logit_scale": jnp.ones(2)}),
        ("logit_scale", {"logit_scale": "1"}),
        ("logit_scale", {"logit_scale": jnp.int32(1)}),
        ("softcap", {"softcap": -1.0}),
        ("impl", {"impl": "cuda"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_arguments_raise(argument: str, change: dict[str, Any]):
    with pytest.raises(ArgumentError, match=f"^{argument}: expected"):
        loss_of(**({"hidden": HIDDEN, "table": TABLE} | change))


def test_float64_raises():
    with jax.enable_x64(True), pytest.raises(ArgumentError, match="float64"):
        loss_of(jnp.zeros((N, D), jnp.float64), TABLE)


def test_int64_arrays():
    with jax.enable_x64(True):
        assert_same(
            loss_of(HIDDEN, TABLE, TARGET.astype(jnp.int64), seed=jnp.int64(SEED - 2**40)),
            loss_of(HIDDEN, TABLE, seed=SEED - 2**40),
        )
        loss = jax.jit(partial(loss_of, reduction="none"))(HIDDEN, TABLE, TARGET.astype(jnp.int64).at[1].set(2**32 + 1))
        assert np.isnan(loss[1])


def test_gradients_with_a_history_under_x64():
    history = History(jnp.zeros(N, jnp.int32), jnp.array([0, 2], jnp.int32), jnp.array([3, 9], jnp.int32))
    want = jax.grad(partial(loss_of, history=history))(HIDDEN, TABLE)
    with jax.enable_x64(True):
        assert_same(jax.jit(jax.grad(partial(loss_of, history=history, impl="auto")))(HIDDEN, TABLE), want)


def test_triton_on_the_cpu_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cpu = jax.devices("cpu")[0]
    with pytest.raises(ArgumentError, match=r"^impl: .*CUDA"):
        loss_of(jax.device_put(HIDDEN, cpu), jax.device_put(TABLE, cpu), impl="triton")
