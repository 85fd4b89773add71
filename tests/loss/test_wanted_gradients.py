"""Gradients that nobody asks for, of a frozen table say, are neither computed nor allocated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus import jax_impl, torch_impl
from cce_minus.kernels import AllItems, LogUniformNegatives, UniformNegatives
from cce_minus.torch_impl.loss import reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N, V, D = 20, 301, 16
NAMES = ("input", "linear_weight", "linear_bias", "logit_scale")
NEGATIVES: dict[str, Any] = {
    "grouped": UniformNegatives(8, 16),
    "independent": UniformNegatives(3, 1),
    "all": AllItems(),
    "lists": LogUniformNegatives(8, 16),
    "shared ids": np.arange(0, 300, 7),
    "row ids": np.arange(N * 4).reshape(N, 4) % V,
}
TARGET = np.arange(N) * 5 % V


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    normal = [rng.standard_normal(shape).astype(np.float32) for shape in ((N, D), (V, D), (V,))]
    return [*normal, np.full(1, 0.7, np.float32)]


def torch_gradients(negatives: Any, asked: set[str], impl: str) -> dict[str, np.ndarray | None]:
    leaves = {
        name: torch.from_numpy(array).to(DEVICE).requires_grad_(name in asked)
        for name, array in zip(NAMES, arrays(), strict=True)
    }
    ids = torch.from_numpy(negatives).to(DEVICE) if isinstance(negatives, np.ndarray) else negatives
    target = torch.from_numpy(TARGET).to(DEVICE)
    hidden, table = leaves.pop("input"), leaves.pop("linear_weight")
    options: dict[str, Any] = {"seed": 1, "impl": impl, **leaves}
    torch_impl.sampled_linear_cross_entropy(hidden, table, target, ids, **options).backward()
    leaves |= {"input": hidden, "linear_weight": table}
    return {name: None if leaf.grad is None else leaf.grad.cpu().numpy() for name, leaf in leaves.items()}


def jax_loss(negatives: Any) -> Any:
    ids = jnp.asarray(negatives) if isinstance(negatives, np.ndarray) else negatives

    def loss(*given: Any) -> Any:
        hidden, table, bias, scale = given
        return jax_impl.sampled_linear_cross_entropy(
            hidden, table, jnp.asarray(TARGET), ids, seed=1, impl="reference", linear_bias=bias, logit_scale=scale
        )

    return loss


@pytest.mark.parametrize("impl", ["reference", pytest.param("triton", marks=pytest.mark.interpreter)])
@pytest.mark.parametrize("name", NEGATIVES)
def test_each_gradient_alone_is_that_of_all(name: str, impl: str):
    want = torch_gradients(NEGATIVES[name], set(NAMES), impl)
    for asked in NAMES:
        got = torch_gradients(NEGATIVES[name], {asked}, impl)
        assert {each for each, gradient in got.items() if gradient is not None} == {asked}
        np.testing.assert_array_equal(got[asked], want[asked])


@pytest.mark.parametrize("name", NEGATIVES)
def test_nothing_of_the_tables_size_is_made_for_a_frozen_table(name: str, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    backward = reference.backward

    def recorded(*args: Any) -> Any:
        results = backward(*args)
        sizes.extend(result.numel() for result in results)
        return results

    monkeypatch.setattr(reference, "backward", recorded)
    torch_gradients(NEGATIVES[name], {"input"}, "reference")
    assert sizes == [N * D, 0, 0, 0]


def shapes_of(jaxpr: Any) -> set[tuple[int, ...]]:
    """The shapes of all that a program computes, those of programs in it among them."""
    found = {tuple(var.aval.shape) for eqn in jaxpr.eqns for var in eqn.outvars if hasattr(var.aval, "shape")}
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= shapes_of(inner)
    return found


def test_in_jax_each_gradient_alone_is_that_of_all_and_a_frozen_table_has_none():
    loss, given = jax_loss(NEGATIVES["grouped"]), arrays()
    want = jax.grad(loss, (0, 1, 2, 3))(*given)
    for number in range(4):
        np.testing.assert_allclose(jax.grad(loss, number)(*given), want[number], rtol=1e-6, atol=1e-7)
    assert (V, D) in shapes_of(jax.make_jaxpr(jax.grad(loss, 1))(*given).jaxpr)
    assert (V, D) not in shapes_of(jax.make_jaxpr(jax.grad(loss, 0))(*given).jaxpr)
