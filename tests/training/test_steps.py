"""One optimisation step is the same in both frameworks: batches, negatives, loss, learning rate, update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.recsys import TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.run.optimizer_choices import learning_rate
from cce_minus.recsys.run.steps import epoch_steps
from flax import nnx
from safetensors.numpy import load_file

from tests.training.runs import JaxRun, TorchRun

STEPS = 8


def losses_of_both(config: TrainConfig, folder: Path) -> tuple[list[float], list[float]]:
    """Trains both from the same weights, writes both results to ``folder`` and returns their losses."""
    _, split = prepare_data(config)
    runs = TorchRun(config, split), JaxRun(config, split)
    runs[0].save(folder / "start.safetensors")
    runs[1].load(folder / "start.safetensors")
    batches = [batch for epoch in range(STEPS // 4) for batch in epoch_batches(config, split, epoch)]
    assert len(batches) == STEPS
    torch_losses, jax_losses = ([run.step(batch, step) for step, batch in enumerate(batches)] for run in runs)
    runs[0].save(folder / "torch.safetensors")
    runs[1].save(folder / "jax.safetensors")
    return torch_losses, jax_losses


@pytest.mark.parametrize(
    "options",
    [
        {"negatives": "all", "weight_decay": 0.1, "warmup_steps": 0},
        {"num_negatives": 20, "group_size": 16},
        {"num_negatives": 7, "group_size": 1},
        {"negatives": "all", "model": "ligr"},
        {"negatives": "all", "model": "bert4rec", "mask_probability": 0.4},
    ],
    ids=["all-items-decayed-cold", "grouped", "independent", "ligr", "bert4rec"],
)
def test_losses_and_updates_agree(make_config: Callable[..., TrainConfig], tmp_path: Path, options: dict):
    config = make_config(dropout=0.0, learning_rate=1e-3, **options)
    torch_losses, jax_losses = losses_of_both(config, tmp_path)
    np.testing.assert_allclose(jax_losses, torch_losses, rtol=1e-4)
    if config.model != "bert4rec":  # whose batches differ by their masks more than eight small steps change
        assert torch_losses[-1] < torch_losses[0]
    torch_tensors, jax_tensors = (load_file(tmp_path / f"{name}.safetensors") for name in ("torch", "jax"))
    start = load_file(tmp_path / "start.safetensors")
    for name, tensor in torch_tensors.items():
        # AdamW divides by the gradient's size, so rounding shows where a gradient is near 0 (the key bias has none).
        if name.endswith("qkv.bias"):
            continue
        moved = np.abs(tensor - start[name]).max()
        assert moved > 1e-3, name
        assert np.abs(jax_tensors[name] - tensor).mean() < 0.01 * moved, name


def test_the_step_draws_its_own_negatives(make_config: Callable[..., TrainConfig]):
    config = make_config(dropout=0.0)
    _, split = prepare_data(config)
    run = JaxRun(config, split)
    batch = next(epoch_batches(config, split, 0))
    first, again, second = (run.loss(batch, step) for step in (0, 0, 1))
    assert first == again
    assert first != second


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_learning_rates_rise_to_the_peak(warmup: int):
    rates = [learning_rate(update, 6, peak=0.5, warmup_steps=warmup, schedule="constant") for update in range(6)]
    assert rates == pytest.approx([0.5 * min(1.0, (update + 1) / max(warmup, 1)) for update in range(6)])


def test_learning_rates_fall_to_nothing_after_the_last_step():
    """Of 24 steps with a warm-up of 5: the peak at step 4, half of it ten steps later, nothing at step 24, which is
    none any more."""
    for schedule in ("linear", "cosine"):
        rates = [learning_rate(update, 24, peak=0.5, warmup_steps=5, schedule=schedule) for update in range(25)]
        assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
        assert rates[14] == pytest.approx(0.25)
        assert rates[24] == pytest.approx(0, abs=1e-12)
        assert all(after < before for before, after in itertools.pairwise(rates[4:]))
        assert learning_rate(0, 1, peak=0.5, warmup_steps=0, schedule=schedule) == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)) / 2)


def torch_sum(model: torch.nn.Module, *_: Any, **__: Any) -> torch.Tensor:
    return torch.stack([parameter.sum() for parameter in model.parameters()]).sum()


def jax_sum(model: nnx.Module, *_: Any, **__: Any) -> jax.Array:
    return jnp.stack([parameter.sum() for parameter in jax.tree.leaves(nnx.state(model, nnx.Param))]).sum()


def test_steps_move_by_their_rates(make_config: Callable[..., TrainConfig]):
    """The first moves of AdamW under a constant gradient are the learning rate."""
    config = make_config(warmup_steps=4, learning_rate=0.5)
    _, split = prepare_data(config)
    runs = TorchRun(config, split, loss=torch_sum), JaxRun(config, split, loss=jax_sum)
    (steps,) = epoch_steps(config, split, 0, on_device=False)
    assert steps.rates.tolist() == [0.125, 0.25, 0.375, 0.5]
    for run in runs:
        before = run.weights
        run.steps(steps)
        for name, weight in run.weights.items():
            np.testing.assert_allclose(before[name] - weight, steps.rates.sum(), rtol=1e-4, err_msg=name)
