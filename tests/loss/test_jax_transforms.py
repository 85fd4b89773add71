"""The JAX loss under jit, grad, scan, remat, vmap and shard_map, and where its derivatives end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import ArgumentError, UniformNegatives
from jax import Array

from tests.loss.small_jax import HIDDEN, SEED, TABLE, D, V, assert_same, loss_of, make


@pytest.fixture(scope="module")
def truth() -> tuple[Array, tuple[Array, Array]]:
    return jax.jit(jax.value_and_grad(loss_of, (0, 1)))(HIDDEN, TABLE)


def test_eagerly(truth):
    assert_same(jax.value_and_grad(loss_of, (0, 1))(HIDDEN, TABLE), truth)


def test_remat(truth):
    assert_same(jax.jit(jax.value_and_grad(jax.checkpoint(loss_of), (0, 1)))(HIDDEN, TABLE), truth)


def test_scan(truth):
    def total(hidden: Array, table: Array) -> Array:
        def step(sum: Array, seed: Array) -> tuple[Array, None]:
            return sum + loss_of(hidden, table, seed=seed), None

        return jax.lax.scan(step, jnp.float32(0), jnp.full(3, SEED))[0]

    assert_same(jax.jit(jax.value_and_grad(total, (0, 1)))(HIDDEN, TABLE), jax.tree.map(lambda x: 3 * x, truth))


def test_auto_is_the_reference_on_the_cpu(truth):
    function = jax.jit(partial(loss_of, impl="auto"))
    with jax.default_device(jax.devices("cpu")[0]):
        assert "callback" not in function.lower(HIDDEN, TABLE).as_text()
        assert_same(function(HIDDEN, TABLE), truth[0])


def test_auto_is_the_kernels_where_lowered_for_cuda():
    lowered = (
        jax.jit(jax.grad(partial(loss_of, impl="auto"), 1)).trace(HIDDEN, TABLE).lower(lowering_platforms=("cuda",))
    )
    text = lowered.as_text()
    assert text.count("custom_call @xla_buffer_python_gpu_callback") == 2
    assert "xla_ffi_python" not in text


def test_kernels_are_compiled_for_every_gpu(monkeypatch: pytest.MonkeyPatch):
    """A call that is traced may run on any of the process's."""
    from cce_minus.jax_impl.loss import ops
    from cce_minus.kernels.launch import loss as launch

    compiled: list[int] = []
    monkeypatch.setattr(ops, "local_gpus", lambda: (0, 3))
    monkeypatch.setattr(launch, "compile_kernels", lambda *arguments: compiled.append(arguments[-1]))
    jax.jit(partial(loss_of, impl="auto", softcap=1.25)).lower(HIDDEN, TABLE)  # of an option that no other test traced
    assert compiled == [0, 3]


def test_samplers_are_arguments_under_jit(truth):
    traces = 0

    @jax.jit
    def loss(hidden: Array, table: Array, sampler: UniformNegatives) -> Array:
        nonlocal traces
        traces += 1
        return loss_of(hidden, table, negatives=sampler)

    for _ in range(2):
        assert_same(loss(HIDDEN, TABLE, UniformNegatives(10, group_size=16)), truth[0])
    assert traces == 1
    loss(HIDDEN, TABLE, UniformNegatives(11, group_size=16))
    assert traces == 2
    assert not jax.tree.leaves(UniformNegatives(3))


def test_same_options_do_not_trace_again():
    calls = []

    def traced(hidden: Array, table: Array) -> Array:
        calls.append(1)
        return loss_of(hidden, table, negatives=UniformNegatives(10, group_size=16))

    function = jax.jit(traced)
    for _ in range(3):
        function(HIDDEN, TABLE)
    assert len(calls) == 1


def folded(hidden: Array, table: Array, target: Array, **options: Any) -> Array:
    """Mapped calls as the one call on all their rows that they are."""
    return loss_of(hidden.reshape(-1, D), table, target.reshape(-1), **options)


def test_vmap_folds_into_rows():
    hidden, table, target = make((3, 6))

    def mapped(hidden: Array, table: Array) -> Array:
        return jax.vmap(loss_of, (0, None, 0))(hidden, table, target).sum()

    expected = jax.value_and_grad(partial(folded, target=target), (0, 1))(hidden, table)
    assert_same(jax.jit(jax.value_and_grad(mapped, (0, 1)))(hidden, table), expected)
    twice = jax.vmap(jax.vmap(loss_of, (0, None, 0)), (0, None, 0))
    assert_same(twice(hidden[None], table, target[None]).sum(), expected[0])


def test_gradients_of_each_mapped_call():
    hidden, table, target = make((3, 6))
    every = jax.jit(jax.vmap(jax.grad(loss_of, (0, 1)), (0, None, 0)))(hidden, table, target)
    for call in range(3):

        def own(hidden: Array, table: Array, call: int = call) -> Array:
            rows = folded(hidden, table, target, reduction="none").reshape(target.shape)
            return rows[call].sum()

        of_hidden, of_table = jax.grad(own, (0, 1))(hidden, table)
        assert_same((every[0][call], every[1][call]), (of_hidden[call], of_table))


def test_jacobian_by_rows():
    def row_losses(table: Array) -> Array:
        return loss_of(HIDDEN, table, reduction="none")

    jacobian = jax.jit(jax.jacrev(row_losses))(TABLE)
    _, back = jax.vjp(row_losses, TABLE)
    for row in (0, 7):
        assert_same(jacobian[row], back(jnp.zeros(len(HIDDEN)).at[row].set(1))[0])
    assert jacobian[7].any()


def test_vmap_maps_ids_and_weights():
    hidden, table, target = make((3, 6))
    ids = jnp.asarray(np.random.default_rng(1).integers(0, V, (3, 7)))
    weight = jnp.asarray(np.random.default_rng(2).uniform(size=(3, 6)), jnp.float32)

    def loss(hidden: Array, target: Array, ids: Array, weight: Array) -> Array:
        return loss_of(hidden, table, target, negatives=ids, sample_weight=weight, seed=None)

    each = [loss(hidden[i], target[i], ids[i], weight[i]) for i in range(3)]
    assert_same(jax.vmap(loss)(hidden, target, ids, weight), jnp.stack(each))
    assert_same(
        jax.vmap(loss, (0, 0, None, 0))(hidden, target, ids[0], weight),
        jnp.stack([loss(hidden[i], target[i], ids[0], weight[i]) for i in range(3)]),
    )
    assert_same(
        jax.vmap(loss, (None, 0, 0, None))(hidden[0], target, ids, weight[0])[2],
        loss(hidden[0], target[2], ids[2], weight[0]),
    )


@pytest.mark.parametrize(
    ("argument", "mapped"),
    [
        ("linear_weight", lambda x: loss_of(HIDDEN, TABLE * x)),
        ("linear_bias", lambda x: loss_of(HIDDEN, TABLE, linear_bias=jnp.ones(V) * x)),
        ("logit_scale", lambda x: loss_of(HIDDEN, TABLE, logit_scale=x)),
        ("seed", lambda x: loss_of(HIDDEN, TABLE, seed=x.astype(int))),
    ],
)
def test_other_vmaps_raise(argument: str, mapped: Callable[[Array], Array]):
    with pytest.raises(ArgumentError, match=f"^{argument}: .*mapped"):
        jax.vmap(mapped)(jnp.arange(2.0))


def test_second_derivatives_raise():
    for second in (jax.hessian(loss_of), jax.jit(jax.grad(lambda x, table: jax.grad(loss_of)(x, table).sum()))):
        with pytest.raises(NotImplementedError, match="second derivatives"):
            second(HIDDEN, TABLE)
    # a gradient inside another is fine as long as it is not itself differentiated
    assert float(jax.grad(lambda a: (a * jax.grad(loss_of)(HIDDEN, TABLE)).sum())(2.0)) != 0


@pytest.mark.parametrize(
    "forward",
    [
        lambda f: jax.jvp(f, (TABLE,), (TABLE,)),
        lambda f: jax.jit(lambda table: jax.jvp(f, (table,), (table,)))(TABLE),
        lambda f: jax.jvp(
            lambda x: jax.lax.scan(lambda c, _: (c + f(x), 0), 0.0, None, length=2)[0], (TABLE,), (TABLE,)
        ),
        lambda f: jax.jacfwd(f)(TABLE),
        lambda f: jax.linearize(f, TABLE)[1](TABLE),
    ],
    ids=["jvp", "jit", "scan", "jacfwd", "linearize"],
)
def test_forward_mode_raises(forward: Callable[[Any], Any]):
    with pytest.raises(NotImplementedError, match="forward mode"):
        forward(partial(loss_of, HIDDEN))


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=pytest.mark.interpreter)])
def test_shard_map(impl: str):
    script = Path(__file__).with_name("two_devices.py")
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling takes most of the time
    }
    run = subprocess.run(
        [sys.executable, script, impl], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert run.stdout.strip() == "passed", run.stderr
