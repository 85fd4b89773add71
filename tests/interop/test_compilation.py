"""On a GPU, kernels are compiled since JAX traced them, none by XLA's callback."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from cce_minus.jax_impl import (
    AllItems,
    HardNegatives,
    History,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    UniformNegatives,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
)
from cce_minus.kernels.launch import programs
from cce_minus.kernels.plan import nearest

from tests.kernels.test_launches import entry_points

pytestmark = pytest.mark.gpu


def compiled() -> int:
    """Compiled variants of all kernels in this process."""

    total = 0
    for name in entry_points():
        module, function = name.split(".")
        kernel = getattr(importlib.import_module(f"cce_minus.kernels.device.{module}"), function)
        total += sum(len(caches[0]) for caches in kernel.device_caches.values())
    return total


class AtOnce:
    """In place of threads: what was begun has ended when tracing has."""

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work())
        return done


MODES = (
    "grouped",
    "independent",
    "membership",
    "all",
    "shared_ids",
    "row_ids",
    "lists",
    "mixed",
    "hard",
    "history",
    "buckets",
)


@pytest.mark.parametrize("mode", MODES)
def test_running_compiles_nothing(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "_threads", AtOnce())
    monkeypatch.setattr(nearest, "MOST_SELECTED_FROM", 128)  # rows and items of buckets are found by blocks
    hidden = jax.random.normal(jax.random.key(0), (150, 48))
    table = jax.random.normal(jax.random.key(1), (333, 48))
    target = jnp.arange(150) % 333
    negatives = {
        "grouped": UniformNegatives(70, 32), "independent": UniformNegatives(20, 1),
        "membership": UniformNegatives(300, 1),
        "all": AllItems(), "shared_ids": jnp.arange(100), "row_ids": jnp.arange(150 * 7).reshape(150, 7) % 333,
        "lists": LogUniformNegatives(70, 32), "mixed": MixedNegatives(UniformNegatives(70, 32), InBatchNegatives(32)),
        "hard": HardNegatives(100, 50, 32),
    }.get(mode, UniformNegatives(70, 32))  # fmt: skip
    log_q = jnp.full(333, -5.8) if mode == "mixed" else None
    history = History(jnp.arange(150) % 2, jnp.array([0, 2, 3]), jnp.array([4, 7, 50])) if mode == "history" else None

    def loss(hidden, table, scale):
        if mode == "buckets":
            return scalable_linear_cross_entropy(
                hidden, table, target, n_buckets=10, bucket_size_x=1, bucket_size_y=2, seed=1, logit_scale=scale
            )
        return sampled_linear_cross_entropy(
            hidden, table, target, negatives, seed=1, logit_scale=scale, log_q=log_q, history=history
        )

    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(hidden, table, jnp.float32(1.0)).compile()
    before = compiled()
    assert before > 0
    value, _ = step(hidden, table, jnp.float32(1.0))
    assert jnp.isfinite(value)
    torch.cuda.synchronize()
    assert compiled() == before
