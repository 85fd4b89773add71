"""The JAX loss under jit, grad, scan, remat, vmap and shard_map; its seeds and its draws."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import (
    AllItems,
    ArgumentError,
    UniformNegatives,
    linear_cross_entropy,
    negative_ids,
    sampled_linear_cross_entropy,
)
from jax import Array

N, V, D = 24, 50, 8
SAMPLER = UniformNegatives(10, group_size=16)
SEED = 11


def make(rows: tuple[int, ...] = (N,)) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    hidden, table = rng.standard_normal((*rows, D)), rng.standard_normal((V, D))
    target = rng.integers(0, V, rows)
    target[..., ::5] = -100
    return jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32), jnp.asarray(target, jnp.int32)


HIDDEN, TABLE, TARGET = make()


def loss_of(hidden: Array, table: Array, target: Array = TARGET, seed: Any = SEED, **options: Any) -> Array:
    options = {"reduction": "sum", "impl": "reference"} | options
    loss = sampled_linear_cross_entropy(hidden, table, target, options.pop("negatives", SAMPLER), seed=seed, **options)
    assert isinstance(loss, Array)
    return loss


@pytest.fixture(scope="module")
def truth() -> tuple[Array, tuple[Array, Array]]:
    return jax.jit(jax.value_and_grad(loss_of, (0, 1)))(HIDDEN, TABLE)


def assert_same(actual: Any, expected: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), actual, expected)


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
    lowered = jax.jit(jax.grad(partial(loss_of, impl="auto"), 1)).trace(HIDDEN, TABLE).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("custom_call @xla_buffer_python_gpu_callback") == 2
    assert "xla_ffi_python" not in text


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
    for second in (jax.hessian(loss_of), jax.jit(jax.grad(lambda x: jax.grad(loss_of)(x, TABLE).sum()))):
        with pytest.raises(NotImplementedError, match="second derivatives"):
            second(HIDDEN, TABLE) if second.__name__ != "<lambda>" else second(HIDDEN)
    # a gradient inside another is fine as long as it is not itself differentiated
    assert float(jax.grad(lambda a: (a * jax.grad(loss_of)(HIDDEN, TABLE)).sum())(2.0)) != 0


def test_forward_mode_raises():
    with pytest.raises(TypeError):
        jax.jvp(loss_of, (HIDDEN, TABLE), (HIDDEN, TABLE))


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
    assert_same(loss_of(HIDDEN, TABLE, seed=seed), truth[0])


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
@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=pytest.mark.interpreter)])
def test_draws_are_negative_ids(sampler: UniformNegatives, impl: str):
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
            impl=impl,
            remove_accidental_hits=False,
        )  # type: ignore[return-value]

    _, gradient = jax.vjp(row_losses, jnp.zeros((items, 1)))
    for place in (0, 5, rows - 3):
        row = np.flatnonzero(target == 0)[place]
        touched = np.flatnonzero(gradient(jnp.zeros(rows).at[row].set(1.0))[0])
        assert set(touched) | {0} == set(drawn[place]) | {0}


def test_full_catalog_is_cross_entropy():
    loss = linear_cross_entropy(HIDDEN, TABLE, TARGET, reduction="none")
    logits = HIDDEN @ TABLE.T
    plain = jax.nn.logsumexp(logits, 1) - jnp.take_along_axis(logits, jnp.maximum(TARGET, 0)[:, None], 1)[:, 0]
    assert_same(loss, jnp.where(TARGET == -100, 0.0, plain))


def test_empty_batch():
    for reduction, shape in (("mean", ()), ("none", (0, 4))):
        value, grad = jax.value_and_grad(lambda h, r=reduction: loss_of(h, TABLE, jnp.zeros((0, 4), int), reduction=r).sum())(
            jnp.zeros((0, 4, D))
        )
        assert (value, grad.shape) == (0, (0, 4, D))
        assert loss_of(jnp.zeros((0, 4, D)), TABLE, jnp.zeros((0, 4), int), reduction=reduction).shape == shape


def test_out_of_range_raises_outside_jit_and_is_nan_inside():
    for target, ids in ((V, 3), (-1, 3), (2, V), (2, -2)):
        arguments = HIDDEN[:2], TABLE, jnp.array([target, 1]), jnp.array([[ids, 4], [3, 4]])
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
        ("negatives", {"negatives": 5}),
        ("linear_bias", {"linear_bias": jnp.zeros(3)}),
        ("sample_weight", {"sample_weight": jnp.zeros(3)}),
        ("ignore_index", {"ignore_index": 2**31}),
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


def test_triton_on_the_cpu_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cpu = jax.devices("cpu")[0]
    with pytest.raises(ArgumentError, match=r"^impl: .*CUDA"):
        loss_of(jax.device_put(HIDDEN, cpu), jax.device_put(TABLE, cpu), impl="triton")


IN_A_PROCESS_OF_TWO_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import AxisType, PartitionSpec as P
from cce_minus.jax_impl import ArgumentError, UniformNegatives, sampled_linear_cross_entropy

impl = sys.argv[1]
hidden = jnp.asarray(np.random.default_rng(0).standard_normal((32, 8)), jnp.float32)
table = jnp.asarray(np.random.default_rng(1).standard_normal((50, 8)), jnp.float32)
target = jnp.arange(32) % 50
scale = jnp.float32(0.7)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

def shard_loss(hidden, table, scale, target, seed):
    options = dict(seed=seed, reduction="sum", impl=impl, logit_scale=scale)
    return sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(10, 16), **options)

def loss_and_gradients(check_vma):
    @partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P(), P(), P("data")), out_specs=(P(), (P("data"), P(), P())), check_vma=check_vma)
    def run(hidden, table, scale, target):
        seed = jax.lax.axis_index("data") + 5
        local, (dh, dt, ds) = jax.value_and_grad(shard_loss, (0, 1, 2))(hidden, table, scale, target, seed)
        if not check_vma:  # otherwise grad sums what the table's copies got
            dt, ds = jax.lax.psum((dt, ds), "data")
        return jax.lax.psum(local, "data"), (dh, dt, ds)
    return jax.jit(run)(hidden, table, scale, target)

halves = [jax.value_and_grad(shard_loss, (0, 1, 2))(hidden[i * 16 :][:16], table, scale, target[i * 16 :][:16], 5 + i) for i in range(2)]
expected = (
    halves[0][0] + halves[1][0],
    (jnp.concatenate([half[1][0] for half in halves]), *(halves[0][1][i] + halves[1][1][i] for i in (1, 2))),
)
for check_vma in (True, False):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), loss_and_gradients(check_vma), expected)
if impl == "reference":
    first, second = jax.devices()
    try:
        sampled_linear_cross_entropy(jax.device_put(hidden, first), jax.device_put(table, second), target, UniformNegatives(5), seed=0)
    except ArgumentError as error:
        assert error.argument == "linear_weight"
    else:
        raise AssertionError("arrays on different devices passed")
print("passed")
"""


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=pytest.mark.interpreter)])
def test_shard_map(impl: str):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_TWO_DEVICES, impl],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.stdout.strip() == "passed", run.stderr
