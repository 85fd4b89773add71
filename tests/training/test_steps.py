"""One optimisation step is the same in both frameworks: batches, negatives, loss, learning rate, update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl import models as jax_models
from cce_minus.jax_impl.training import objective as jax_objective
from cce_minus.recsys import TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl import models as torch_models
from cce_minus.torch_impl.training import objective as torch_objective
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
def test_learning_rates_rise_alike(make_config: Callable[..., TrainConfig], warmup: int):
    config = make_config(warmup_steps=warmup, learning_rate=0.5)
    torch_model = torch_models.build_model(ModelConfig(num_items=5, max_length=4, dim=2, num_blocks=1))
    jax_model = jax_models.build_model(ModelConfig(num_items=5, max_length=4, dim=2, num_blocks=1), rngs=nnx.Rngs(0))
    torch_optimizer, schedule = torch_objective.make_optimizer(torch_model, config)
    jax_optimizer = jax_objective.make_optimizer(jax_model, config)
    for parameter in torch_model.parameters():
        parameter.grad = torch.ones_like(parameter)
    gradients = jax.tree.map(jnp.ones_like, nnx.state(jax_model, nnx.Param))
    update = nnx.jit(lambda model, optimizer: optimizer.update(model, gradients))
    for step in range(6):
        expected = 0.5 * min(1.0, (step + 1) / max(warmup, 1))
        assert torch_optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        # The first Adam steps under a constant gradient move by exactly the learning rate.
        before = float(jax_model.item_table[0, 0]), torch_model.item_table[0, 0].item()
        torch_optimizer.step()
        schedule.step()
        update(jax_model, jax_optimizer)
        moves = (
            abs(float(jax_model.item_table[0, 0]) - before[0]),
            abs(torch_model.item_table[0, 0].item() - before[1]),
        )
        assert moves == pytest.approx((expected, expected), rel=1e-2)
