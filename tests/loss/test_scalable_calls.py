"""Scalable cross-entropy (SCE) as a function among others: module, compiled calls, transformations, edges and
errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import cce_minus.jax_impl as ours_jax
import cce_minus.torch_impl as ours_torch
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.kernels import ArgumentError, ArgumentTypeError, ArgumentValueError
from cce_minus.kernels.negatives import buckets as static_buckets
from torch._dynamo.testing import CompileCounter

FRAMEWORKS = (ours_torch, ours_jax)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N, V, D = 40, 70, 12
SIZES: dict[str, Any] = {"n_buckets": 6, "bucket_size_x": 10, "bucket_size_y": 15}
RNG = np.random.default_rng(0)
HIDDEN, TABLE = RNG.standard_normal((N, D), np.float32), RNG.standard_normal((V, D), np.float32)
TARGET = RNG.integers(0, V, N)
TARGET[::7] = -100


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(array, device=DEVICE).requires_grad_(array.dtype == np.float32) for array in arrays]


def torch_loss(*arrays: Any, **keywords: Any) -> torch.Tensor:
    return ours_torch.scalable_linear_cross_entropy(*arrays, **({"seed": 5} | SIZES | keywords))


def jax_loss(*arrays: Any, **keywords: Any) -> Any:
    return ours_jax.scalable_linear_cross_entropy(*arrays, **({"seed": 5} | SIZES | keywords))


def call(framework: Any, hidden: Any = HIDDEN, table: Any = TABLE, target: Any = TARGET, **keywords: Any) -> np.ndarray:
    if framework is ours_jax:
        return np.asarray(jax_loss(hidden, table, target, **keywords))
    keywords = {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in keywords.items()
    }
    return torch_loss(*map(torch.tensor, (hidden, table, target)), **keywords).numpy()


@pytest.mark.parametrize("mix_x", [False, True])
def test_compile_fullgraph(mix_x: bool):
    arrays = tensors(HIDDEN, TABLE, TARGET)

    def step(*arrays: torch.Tensor) -> torch.Tensor:
        return torch_loss(*arrays, mix_x=mix_x, logit_scale=0.5, softcap=5.0)

    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        loss = run(*arrays)
        results.append((loss, *torch.autograd.grad(loss, arrays[:2])))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_compile_with_dynamic_sizes():
    compiled = torch.compile(torch_loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (N, N - 3, 4):
        arrays = tensors(HIDDEN[:rows], TABLE, TARGET[:rows])
        assert torch.equal(compiled(*arrays), torch_loss(*arrays))


def test_module_makes_new_buckets_without_recompiling():
    arrays = tensors(HIDDEN, TABLE, TARGET)
    module = ours_torch.ScalableLinearCrossEntropyLoss(**SIZES, mix_x=True, softcap=4.0, seed=5).to(DEVICE)
    assert float(module(*arrays).detach()) == float(torch_loss(*arrays, mix_x=True, softcap=4.0).detach())
    assert "bucket_size_x=10" in repr(module)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    losses = [float(compiled(*arrays).detach()) for _ in range(3)]
    assert len(set(losses)) == 3
    assert counter.frame_count == 1
    module.load_state_dict(state)
    assert losses == [float(module(*arrays).detach()) for _ in range(3)]
    with pytest.raises(ArgumentValueError, match=r"^n_buckets: "):
        ours_torch.ScalableLinearCrossEntropyLoss(n_buckets=0, bucket_size_x=1, bucket_size_y=1)


def test_autocast_casts_the_input():
    hidden, table, target = tensors(HIDDEN, TABLE, TARGET)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss = torch_loss(hidden, table, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, torch_loss(hidden.detach().bfloat16(), table, target))
    loss.backward()
    assert table.grad is not None
    assert table.grad.dtype == torch.float32


def test_torch_draws_a_seed_and_jax_wants_one():
    arrays = tensors(HIDDEN, TABLE, TARGET)
    torch.manual_seed(3)
    first, second = torch_loss(*arrays, seed=None), torch_loss(*arrays, seed=None)
    torch.manual_seed(3)
    assert torch.equal(first, torch_loss(*arrays, seed=None))
    assert not torch.equal(first, second)
    with pytest.raises(ArgumentTypeError, match=r"^seed: "):
        jax_loss(HIDDEN, TABLE, TARGET, seed=None)


def test_jax_transformations():
    value_and_grad = jax.value_and_grad(lambda hidden, table: jax_loss(hidden, table, TARGET, reduction="sum"), (0, 1))
    truth = value_and_grad(HIDDEN, TABLE)
    same = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6))
    same(jax.jit(value_and_grad)(HIDDEN, TABLE), truth)
    same(
        jax.jit(jax.value_and_grad(jax.checkpoint(lambda h, c: jax_loss(h, c, TARGET, reduction="sum")), (0, 1)))(
            HIDDEN, TABLE
        ),
        truth,
    )
    hidden, target, seeds = HIDDEN.reshape(4, 10, D), TARGET.reshape(4, 10), jnp.arange(4)

    def loss(hidden: Any, table: Any, target: Any, seed: Any) -> Any:
        return jax_loss(hidden, table, target, seed=seed, n_buckets=2, bucket_size_x=4)

    each = [jax.value_and_grad(loss, (0, 1))(hidden[i], TABLE, target[i], i) for i in range(4)]
    mapped = jax.vmap(jax.value_and_grad(loss, (0, 1)), (0, None, 0, 0))(hidden, TABLE, target, seeds)
    same(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
    summed = jax.grad(lambda table: jax.vmap(loss, (0, None, 0, 0))(hidden, table, target, seeds).sum())(
        jnp.asarray(TABLE)
    )
    same(summed, sum(grads[1] for _, grads in each))


def test_x64_changes_nothing():
    want = call(ours_jax)
    with jax.enable_x64(True):
        got = jax_loss(HIDDEN, TABLE, TARGET)
    assert got.dtype == jnp.float32
    assert got == want


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
def test_shapes_and_small_integers(framework: Any):
    flat = call(framework, reduction="none")
    assert (flat[TARGET == -100] == 0).all()
    shaped = call(framework, HIDDEN.reshape(2, 20, D), target=TARGET.reshape(2, 20).astype(np.int8), reduction="none")
    np.testing.assert_array_equal(shaped.reshape(-1), flat)
    weight = np.full((2, 20), 0.5, np.float32)
    mean = call(framework, HIDDEN.reshape(2, 20, D), target=TARGET.reshape(2, 20), sample_weight=weight)
    np.testing.assert_allclose(mean, flat.sum() / (flat > 0).sum(), rtol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_empty_batch(framework: Any, reduction: str):
    loss = call(framework, HIDDEN[:0], target=TARGET[:0], reduction=reduction)
    assert loss.shape == ((0,) if reduction == "none" else ())
    assert not loss.any()
    hidden, table, target = tensors(HIDDEN[:0], TABLE, TARGET[:0])
    torch_loss(hidden, table, target).backward()
    assert table.grad is not None
    assert not table.grad.any()


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=pytest.mark.interpreter)])
@pytest.mark.parametrize("ignored", [slice(None, None, 7), slice(3, None), slice(None)], ids=["some", "most", "all"])
@pytest.mark.parametrize("mix_x", [False, True])
def test_whatever_ignored_rows_hold(ignored: slice, mix_x: bool, impl: str):
    """Padding may be NaN or infinite, as in a model whose attention is masked away; nothing of it gets out."""
    target = np.where(TARGET == -100, 1, TARGET)
    target[ignored] = -100
    results = []
    for fill in (0.0, np.nan, np.inf):
        hidden = HIDDEN.copy()
        hidden[ignored] = fill
        arrays = tensors(hidden, TABLE, target)
        loss = torch_loss(*arrays, mix_x=mix_x, impl=impl)
        results.append((loss, *torch.autograd.grad(loss, arrays[:2])))
        value, grads = jax.value_and_grad(partial(jax_loss, mix_x=mix_x, impl="reference"), (0, 1))(
            *map(jnp.asarray, (hidden, TABLE, target))
        )
        for got, want in zip((value, *grads), results[-1], strict=True):
            np.testing.assert_allclose(got, want.detach().cpu(), rtol=1e-4, atol=1e-5)
    rounding = (
        0.0 if impl == "triton" or not torch.cuda.is_available() else 1e-6
    )  # plain torch adds in any order on a GPU
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
def test_projections_in_parts_make_the_same_buckets(framework: Any, monkeypatch: pytest.MonkeyPatch):
    for mix_x in (False, True):
        want = call(framework, mix_x=mix_x, reduction="none")
        with monkeypatch.context() as patch:
            patch.setattr(static_buckets, "SCORE_ELEMENTS", 17 * D)  # 17 rows or items at a time
            patch.setattr(static_buckets, "NORMAL_ELEMENTS", 11 * 6)
            got = call(framework, mix_x=mix_x, reduction="none")
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_targets_that_are_no_items():
    for wrong in (V, -1, -2, 2**40):
        target = np.where(np.arange(N) == 4, wrong, np.maximum(TARGET, 0))
        for framework in FRAMEWORKS:
            with pytest.raises(ArgumentValueError, match=r"^target: expected ignore_index or an item"):
                call(framework, target=target)
        loss = jax.jit(partial(jax_loss, reduction="none", bucket_size_x=N))(
            HIDDEN, TABLE, jnp.asarray(target.clip(-3, V), jnp.int32)
        )
        assert np.flatnonzero(np.isnan(loss)).tolist() == [4]


VALUE, TYPE = ArgumentValueError, ArgumentTypeError


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("changes", "argument", "kind"),
    [
        ({"n_buckets": 0}, "n_buckets", VALUE),
        ({"n_buckets": True}, "n_buckets", TYPE),
        ({"n_buckets": 2**30}, "n_buckets", VALUE),
        ({"n_buckets": 2**25, "bucket_size_x": 1, "bucket_size_y": V}, "n_buckets", VALUE),
        ({"bucket_size_x": -1}, "bucket_size_x", VALUE),
        ({"bucket_size_x": 2.0}, "bucket_size_x", TYPE),
        ({"bucket_size_y": 0}, "bucket_size_y", VALUE),
        ({"bucket_size_y": None}, "bucket_size_y", TYPE),
        ({"mix_x": 1}, "mix_x", TYPE),
        ({"reduction": "max"}, "reduction", VALUE),
        ({"impl": "cuda"}, "impl", VALUE),
        ({"softcap": 0.0}, "softcap", VALUE),
        ({"logit_scale": "1"}, "logit_scale", TYPE),
        ({"seed": 0.5}, "seed", TYPE),
        ({"linear_bias": np.zeros(V + 1, np.float32)}, "linear_bias", VALUE),
        ({"sample_weight": np.zeros(N - 1, np.float32)}, "sample_weight", VALUE),
        ({"table": TABLE[:, :3]}, "linear_weight", VALUE),
        ({"target": TARGET[:3]}, "target", VALUE),
        ({"ignore_index": 0.5}, "ignore_index", TYPE),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_errors(framework: Any, changes: dict[str, Any], argument: str, kind: type[ArgumentError]):
    with pytest.raises(kind) as caught:
        call(framework, **changes)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: expected ")
