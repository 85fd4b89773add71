"""Working sets as tests make them, in both frameworks."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus import jax_impl, torch_impl
from cce_minus.jax_impl.tables.working_set import working_set as jax_working_set
from cce_minus.kernels import (
    History,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
)
from cce_minus.torch_impl.tables.working_set import working_set as torch_working_set

FRAMEWORKS = ("torch", "jax")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", pytest.param("triton", marks=pytest.mark.interpreter))
ARRAYS = ("ids", "count", "target", "inputs", "drawn", "positions", "log_weight", "history_weight")
COUNTS = np.arange(4000) % 7
LISTS = (
    PopularityNegatives(COUNTS, 70, group_size=32),
    LogUniformNegatives(5, 16),
    MixedNegatives(UniformNegatives(20, 32), PopularityNegatives(COUNTS, 8, group_size=32)),
)
OF_TARGETS = (
    InBatchNegatives(16),
    InBatchNegatives(None),
    MixedNegatives(UniformNegatives(20, 16), InBatchNegatives(16)),
)


def kind(sampler: Any) -> str:
    """A name for a cell, of as many letters as tell it from others."""
    parts = [sampler.first, sampler.second] if isinstance(sampler, MixedNegatives) else [sampler]
    return "+".join(f"{type(part).__name__.removesuffix('Negatives')}_{part.group_size}" for part in parts)


def made(framework: str, negatives: Any, target: np.ndarray, **keywords: Any) -> dict[str, np.ndarray]:
    """The arrays of a working set, by name."""
    found = make(framework, negatives, target, **keywords)
    arrays = {name: getattr(found, name) for name in ARRAYS}
    return {
        name: array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
        for name, array in arrays.items()
        if array is not None
    }


def make(framework: str, negatives: Any, target: np.ndarray, **keywords: Any) -> Any:
    arrays = {"target": target} | {name: keywords.pop(name, None) for name in ("inputs", "log_q")}
    history = keywords.pop("history", None)
    if framework == "jax":
        return jax_working_set(negatives, history=history, **arrays, **keywords)
    tensors = {name: None if array is None else torch.from_numpy(array).to(DEVICE) for name, array in arrays.items()}
    history = history and History(*(torch.from_numpy(array).to(DEVICE) for array in history))
    return torch_working_set(negatives, history=history, **tensors, **keywords)  # type: ignore[arg-type]


def inputs_of(rows: int, num_items: int, *, ignored: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + num_items)
    target = np.where(rng.random(rows) < ignored, -100, rng.integers(0, num_items, rows)).astype(np.int32)
    return target, rng.integers(-1, num_items, (rows, 3)).astype(np.int32)


def loss_of(framework: str, given: Any, **keywords: Any) -> Any:
    module: Any = torch_impl if framework == "torch" else jax_impl
    array = partial(torch.ones, device=DEVICE) if framework == "torch" else jnp.ones
    shape = keywords.pop("shape", (len(given.target), 8))
    table = keywords.pop("table", len(given.ids))
    call = keywords.pop("call", module.sampled_linear_cross_entropy)
    return call(array(shape), array((table, 8)), keywords.pop("target", given.target), given, **keywords)
