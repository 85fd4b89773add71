"""On a GPU: 200 training steps from the same weights and batches follow the same loss curve in both frameworks."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from cce_minus.jax_impl import objective as jax_objective
from cce_minus.jax_impl import sasrec as jax_sasrec
from cce_minus.jax_impl import weights as jax_weights
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.sasrec_config import SASRecConfig
from cce_minus.torch_impl import objective as torch_objective
from cce_minus.torch_impl import sasrec as torch_sasrec
from cce_minus.torch_impl import weights as torch_weights
from flax import nnx

pytestmark = pytest.mark.gpu

STEPS, ITEMS, BATCH, LENGTH = 200, 5000, 64, 50


def walks(steps: int) -> np.ndarray:
    """(steps, BATCH, LENGTH + 1) item sequences with something to learn: mostly steps of 1 around a ring."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, ITEMS, (steps, BATCH, 1))
    moves = rng.choice([1, 1, 1, 7], (steps, BATCH, LENGTH + 1)).cumsum(2)
    return ((start + moves) % ITEMS).astype(np.int32)


@pytest.mark.parametrize("negatives", [256, 0], ids=["grouped", "all-items"])
def test_loss_curves_agree(tmp_path: Path, negatives: int):
    config = TrainConfig(dim=64, max_length=LENGTH, dropout=0.0, negatives=negatives, learning_rate=1e-3, warmup_steps=20)
    shape = SASRecConfig.from_train(config, ITEMS)
    torch_model = torch_sasrec.SASRec(shape)
    jax_model = jax_sasrec.SASRec(shape, rngs=nnx.Rngs(1))
    torch_weights.save_weights(torch_model, tmp_path / "start.safetensors")
    jax_weights.load_weights(jax_model, tmp_path / "start.safetensors")
    torch_model.cuda()
    torch_optimizer, schedule = torch_objective.make_optimizer(torch_model, config)
    jax_optimizer = jax_objective.make_optimizer(jax_model, config)
    sampler = jax_objective.negative_sampler(config)
    assert jax.default_backend() == "gpu"
    curves = np.zeros((2, STEPS))
    for step, sequences in enumerate(walks(STEPS)):
        inputs, targets = sequences[:, :-1].copy(), sequences[:, 1:].copy()
        loss = torch_objective.training_loss(
            torch_model, torch.from_numpy(inputs).cuda(), torch.from_numpy(targets).cuda(), config, step
        )
        torch_optimizer.zero_grad()
        loss.backward()
        torch_optimizer.step()
        schedule.step()
        seed = jax_objective.step_seed(config, step)
        jax_loss = jax_objective.train_step(jax_model, jax_optimizer, inputs, targets, seed, sampler=sampler, impl="auto")
        curves[:, step] = loss.item(), float(jax_loss)
    difference = np.abs(curves[0] - curves[1]) / curves[0]
    print(f"loss {curves[0, 0]:.3f} -> {curves[0, -1]:.3f}; largest relative difference {difference.max():.2e}")
    assert curves[0, -1] < 0.9 * curves[0, 0]
    assert difference.max() < 1e-3
