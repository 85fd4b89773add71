"""Random calls against the oracle: a sample, and with the grid a thousand. ``python -m tests.fuzz`` runs more, on GPUs
too."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import pytest

from tests.fuzz.calls import Plan
from tests.fuzz.signatures import KINDS
from tests.fuzz.workers import outcomes

TORCH = Plan(seed=0, signatures=1000, size="small", framework="torch")
JAX = Plan(seed=1, signatures=len(KINDS), size="small", framework="jax")  # each is compiled
CALLS, A_TEST = {"torch": 1000, "jax": 4 * JAX.signatures}, 20


def check(plan: Plan, numbers: Iterable[int], impl: str) -> None:
    found = list(outcomes(plan, numbers, impl, "cpu"))
    failures = [
        f"python -m tests.fuzz --framework {plan.framework} --seed {plan.seed} --static-signatures {plan.signatures} "
        f"--row-counts {plan.row_counts} --size {plan.size} --impl {each.impl} --only {each.number}: {each.failure}"
        for each in found
        if each.failure
    ]
    assert found
    assert not failures, "\n".join(failures)


def chunks(number: int, size: int) -> list[object]:
    """The first is the sample."""
    return [pytest.param(i, marks=[pytest.mark.grid] if i >= size else []) for i in range(number)]


@pytest.mark.interpreter
@pytest.mark.parametrize("chunk", chunks(CALLS["torch"] // A_TEST, 1))
def test_torch(chunk: int):
    check(TORCH, range(A_TEST * chunk, A_TEST * (chunk + 1)), "both")


@pytest.mark.interpreter
@pytest.mark.parametrize("number", chunks(JAX.signatures, 3))
def test_jax(number: int):
    """All calls of a signature, the first of a few kinds through the kernels too."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        check(JAX, [number], "reference" if number % 8 else "both")
        check(JAX, range(number + JAX.signatures, CALLS["jax"], JAX.signatures), "reference")
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        jax.clear_caches()
