"""Training with users of like lengths in the same batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from cce_minus.jax_impl.training.trainer import Trainer as JaxTrainer
from cce_minus.recsys import TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.run.experiment import row_lengths, weighing_targets
from cce_minus.recsys.run.steps import epoch_steps
from cce_minus.torch_impl.devices import captured
from cce_minus.torch_impl.train import train as train_torch
from cce_minus.torch_impl.training import steps as steps_module

from tests.training.runs import JaxRun, TorchRun, eager_steps

Make = Callable[..., TrainConfig]

LENGTH, ITEMS = 24, 40

KINDS: dict[str, dict[str, Any]] = {
    "gathered": {},
    "accumulated": {"accumulate": 2},
    "of the host": {"data_on": "host"},
    "in-batch": {"negatives": "in-batch"},
    "rows alone": {"item_optimizer": "lazy-adam", "num_negatives": 2, "group_size": 128},
    "bert4rec": {"model": "bert4rec"},
    "averaged": {"ema_decay": 0.9},
}


@pytest.fixture
def grouped(make_config: Make, long_tailed: Path) -> Make:
    def make(out: str = "run", **changes: Any) -> TrainConfig:
        return make_config(out, **{"data": str(long_tailed), "max_length": LENGTH, "batch_size": 8, **changes})

    return make


def losses_of(run: TorchRun | JaxRun, epochs: int) -> np.ndarray:
    split = prepare_data(run.config)[1]
    losses = []
    for epoch in range(epochs):
        for steps in epoch_steps(run.config, split, epoch, on_device=run.config.data_on != "host"):
            losses.append(np.asarray(run.steps(steps)).reshape(-1)[: steps.num_batches])
    return np.concatenate(losses)


@pytest.mark.parametrize("kind", KINDS)
def test_frameworks_train_alike(grouped: Make, tmp_path: Path, kind: str):
    config = grouped(dropout=0.0, learning_rate=1e-3, **KINDS[kind])
    split = prepare_data(config)[1]
    assert len(row_lengths(config, split)) == 2
    options: dict[str, Any] = {
        "sequences": None if config.data_on == "host" else split.train,
        "weighing_targets": weighing_targets(config, split),
        "item_rule": "lazy_adam" if kind == "rows alone" else None,
    }
    runs = TorchRun(config, split, **options), JaxRun(config, split, **options)
    runs[0].save(tmp_path / "start.safetensors")
    runs[1].load(tmp_path / "start.safetensors")
    torch_losses, jax_losses = (losses_of(run, 2) for run in runs)
    assert len(torch_losses) == 30
    np.testing.assert_allclose(jax_losses, torch_losses, rtol=1e-4)


@pytest.mark.parametrize("run_of", [TorchRun, JaxRun])
def test_every_position_counts_alike(grouped: Make, run_of: type[TorchRun] | type[JaxRun]):
    """The mean over an epoch's batches is that over its positions, whatever batch they are in."""
    config = grouped(dropout=0.0, learning_rate=1e-30, negatives="all")
    apart = replace(config, group_by_length=False)
    split = prepare_data(config)[1]
    together = losses_of(
        run_of(config, split, sequences=split.train, weighing_targets=weighing_targets(config, split)), 1
    )
    alone = losses_of(run_of(apart, split, sequences=split.train), 1)
    counts = [int((batch.targets >= 0).sum()) for batch in epoch_batches(apart, split, 0)]
    assert np.std(together) > 3 * np.std(alone)  # by their numbers of positions
    assert together.mean() == pytest.approx(np.average(alone, weights=counts), rel=1e-5)


@pytest.mark.parametrize("kind", ["gathered", "accumulated", "bert4rec"])
def test_a_resumed_run_is_an_uninterrupted_one(grouped: Make, train: Callable[[TrainConfig], Any], kind: str):
    whole = train(grouped("whole", epochs=4, **KINDS[kind]))
    first = grouped("parts", epochs=2, **KINDS[kind])
    train(first)
    parts = train(replace(first, epochs=4, resume=True))
    assert parts.losses == whole.losses
    assert parts.test == whole.test


def test_jax_compiles_each_length_ahead(grouped: Make):
    """As on a GPU, where the lengths' programs compile side by side: the same steps."""
    config = grouped(learning_rate=1e-3, accumulate=2, ema_decay=0.9)
    split = prepare_data(config)[1]
    options: dict[str, Any] = {"sequences": split.train, "weighing_targets": weighing_targets(config, split)}
    ahead, expected = JaxRun(config, split, **options), JaxRun(config, split, **options)
    for steps in JaxTrainer(JaxRun(config, split).steps.parts().model(), config, split)._loop.forms():
        ahead.steps.compile_ahead(steps)
    assert len(ahead.steps._ahead) == 2
    np.testing.assert_allclose(losses_of(ahead, 2), losses_of(expected, 2), rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gathered", "accumulated", "of the host", "rows alone"])
def test_each_length_is_captured(grouped: Make, kind: str):
    options = {"device": "cuda", "dropout": 0.3, **KINDS[kind]}
    with mock.patch.object(steps_module, "as_graph", wraps=steps_module.as_graph) as capture:
        by_graphs = train_torch(grouped("graphs", **options))
        assert capture.call_count == (4 if kind == "accumulated" else 2)
    with eager_steps():
        eager = train_torch(grouped("eager", **options))
    assert by_graphs.losses == pytest.approx(eager.losses, rel=1e-4)


@pytest.mark.gpu
def test_a_capture_outlives_graphs_that_are_garbage(grouped: Make):
    """As where a process trains twice: the collector would give back the first training's graphs in the second's."""
    held = torch.zeros(1, device="cuda")
    for _ in range(20):
        circle: list[Any] = [torch.cuda.CUDAGraph()]
        with captured(circle[0]):
            held.add_(1)
        circle.append(circle)
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        losses = train_torch(grouped("first", device="cuda", epochs=1)).losses
    finally:
        gc.set_threshold(*thresholds)
    assert np.isfinite(losses).all()
    assert gc.isenabled()
