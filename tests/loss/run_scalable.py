"""Runs of both frameworks' scalable cross-entropy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cce_minus.jax_impl import scalable_linear_cross_entropy as jax_loss
from cce_minus.torch_impl import scalable_linear_cross_entropy as torch_loss
from cce_minus.torch_impl.loss import buckets as torch_buckets
from torch import Tensor

from tests.loss.run_torch import poisoned_outputs
from tests.loss.scalable import NAMES, SEED, Case, Chosen, centres, make_inputs


def run_torch(case: Case, impl: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> dict[str, np.ndarray]:
    inputs = make_inputs(case, dtype)

    def leaf(array: np.ndarray | None, dtype: torch.dtype = dtype) -> Tensor | None:
        return None if array is None else torch.tensor(array, device=device).to(dtype).requires_grad_()

    leaves = {
        "input": leaf(inputs.hidden), "linear_weight": leaf(inputs.table), "linear_bias": leaf(inputs.bias),
        "logit_scale": leaf(np.array(case.logit_scale), torch.float32), "sample_weight": leaf(inputs.weight,
        torch.float32),
    }  # fmt: skip
    with poisoned_outputs():
        loss = torch_loss(
            target=torch.tensor(inputs.target, device=device), seed=SEED, impl=impl, **leaves, **case.sizes,
            **case.options,
        )  # type: ignore[arg-type]  # fmt: skip
        assert loss.dtype == torch.float32
        loss.backward(torch.tensor(inputs.upstream, device=device) if case.reduction == "none" else None)
    values = (loss, *(None if leaf is None else leaf.grad for leaf in leaves.values()))
    return {
        name: value.detach().double().cpu().numpy()
        for name, value in zip(NAMES, values, strict=True)
        if value is not None
    }


def run_jax(case: Case, impl: str, dtype: torch.dtype = torch.float32) -> dict[str, np.ndarray]:
    inputs = make_inputs(case, dtype)
    name = str(dtype).removeprefix("torch.")
    leaves = {
        "input": jnp.asarray(inputs.hidden, name), "linear_weight": jnp.asarray(inputs.table, name),
        "linear_bias": None if inputs.bias is None else jnp.asarray(inputs.bias, name),
        "logit_scale": jnp.float32(case.logit_scale),
        "sample_weight": None if inputs.weight is None else jnp.asarray(inputs.weight),
    }  # fmt: skip
    seed = jnp.array([SEED >> 32, SEED & 0xFFFFFFFF], jnp.uint32)

    @jax.jit
    def run(leaves: dict[str, Any], target: Any, seed: Any) -> Any:
        def objective(leaves: dict[str, Any]) -> tuple[Any, Any]:
            loss = jax_loss(target=target, seed=seed, impl=impl, **leaves, **case.sizes, **case.options)
            return (loss * inputs.upstream).sum() if case.reduction == "none" else loss, loss

        return jax.value_and_grad(objective, has_aux=True)(leaves)

    (_, loss), grads = run(leaves, jnp.asarray(inputs.target, jnp.int32), seed)
    values = (loss, *(grads[each] for each in leaves))
    return {name: np.asarray(value, np.float64) for name, value in zip(NAMES, values, strict=True) if value is not None}


def torch_choice(case: Case, dtype: torch.dtype, device: str) -> Chosen:
    """The buckets that the PyTorch function makes, checked: what is left out has no clearly larger product than what is
    in."""
    from cce_minus.kernels.negatives.buckets import Buckets
    from cce_minus.torch_impl.loss.seeds import seed_words

    inputs = make_inputs(case, dtype)
    buckets = Buckets(**case.sizes).fitted(case.num_rows, case.num_items)
    counted = torch.tensor(inputs.target != case.ignore_index, device=device)
    hidden, table = (torch.tensor(array, device=device).to(dtype) for array in (inputs.hidden, inputs.table))
    words = seed_words(SEED, torch.device(device))
    rows, items = torch_buckets.choose(
        torch.where(counted[:, None], hidden, 0),
        table,
        counted,
        words,
        buckets,
        "reference" if device == "cpu" else "triton",
    )
    b = centres(case, inputs)
    allowed = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
    clean = np.where((inputs.target != case.ignore_index)[:, None], inputs.hidden, 0)
    for places, vectors in ((rows, clean), (items, inputs.table)):
        scores = b @ vectors.T.astype(np.float64)
        inside = np.zeros(scores.shape, bool)
        np.put_along_axis(inside, places.cpu().numpy().astype(np.int64), True, 1)
        assert (inside.sum(1) == places.shape[1]).all(), "a bucket holds nothing twice"
        outside = ~inside & (counted.cpu().numpy() if vectors is clean else True)
        smallest = np.where(inside & (counted.cpu().numpy() if vectors is clean else True), scores, np.inf).min(1)
        gap = np.where(outside, scores, -np.inf).max(1) - smallest
        assert (gap <= allowed * np.abs(scores).max(1, initial=1e-9)).all()
    return rows.cpu().numpy(), items.long().cpu().numpy()
