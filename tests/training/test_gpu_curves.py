"""On a GPU: 200 training steps from the same weights and batches follow the same loss curve in both frameworks."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from cce_minus.recsys import Batch, Ragged, Split, TrainConfig

from tests.training.runs import JaxRun, TorchRun

pytestmark = pytest.mark.gpu

STEPS, ITEMS, BATCH, LENGTH = 200, 5000, 64, 50


def walks(steps: int) -> np.ndarray:
    """(steps, BATCH, LENGTH + 1) item sequences with something to learn: mostly steps of 1 around a ring."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, ITEMS, (steps, BATCH, 1))
    moves = rng.choice([1, 1, 1, 7], (steps, BATCH, LENGTH + 1)).cumsum(2)
    return ((start + moves) % ITEMS).astype(np.int32)


@pytest.mark.parametrize("negatives", ["uniform", "all"])
def test_loss_curves_agree(tmp_path: Path, negatives: str):
    config = TrainConfig(
        dim=64, max_length=LENGTH, batch_size=BATCH, dropout=0.0, negatives=negatives, learning_rate=1e-3,
        warmup_steps=20,
    )  # fmt: skip
    sequences = walks(STEPS)
    train, nobody = Ragged.from_rows(list(sequences[0])), np.zeros(0, np.int32)
    split = Split(train, Ragged.from_rows([]), nobody, Ragged.from_rows([]), nobody, ITEMS)
    runs = TorchRun(config, split, "cuda"), JaxRun(config, split)
    runs[0].save(tmp_path / "start.safetensors")
    runs[1].load(tmp_path / "start.safetensors")
    assert jax.default_backend() == "gpu"
    batches = [Batch(rows[:, :-1].copy(), rows[:, 1:].copy()) for rows in sequences]
    curves = np.array([[run.step(batch, step) for step, batch in enumerate(batches)] for run in runs])
    difference = np.abs(curves[0] - curves[1]) / curves[0]
    print(f"loss {curves[0, 0]:.3f} -> {curves[0, -1]:.3f}; largest relative difference {difference.max():.2e}")
    assert curves[0, -1] < 0.9 * curves[0, 0]
    assert difference.max() < 1e-3
