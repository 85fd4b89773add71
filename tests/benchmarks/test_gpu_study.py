"""The study on a GPU: a captured step is the training command's step, and the times of a cell are written into its
rows."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.kernels import fold_seed
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.training.objective import make_optimizer, step_seed

from benchmarks.study.cells import METHODS, Cell, Dataset, Method
from benchmarks.study.step import TrainingStep
from benchmarks.study.timing import measure_cell
from benchmarks.study.training import epoch_tensors, loss_of, prepared

pytestmark = pytest.mark.gpu

SMALL = Dataset(
    "random",
    1,
    {
        "dim": 32,
        "num_blocks": 1,
        "num_heads": 2,
        "max_length": 8,
        "batch_size": 64,
        "learning_rate": 1e-2,
        "dropout": 0.3,
    }
    | {"warmup_steps": 4},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    users, items, length = 300, 2000, 9
    drawn = np.random.default_rng(0).integers(0, items, (users, length))
    table = {
        "user_id": np.repeat(np.arange(users), length),
        "item_id": drawn.ravel(),
        "timestamp": np.tile(np.arange(length), users),
    }
    folder = tmp_path_factory.mktemp("study")
    pq.write_table(pa.table(table), folder / "random.parquet")
    return folder


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_captured_steps_are_eager_steps(method: Method, data: Path):
    """From the same weights, the same batches, dropout, draws and rates: losses of six steps, and the item table after
    them."""
    device = torch.device("cuda")
    cell = Cell(SMALL, method, {"precision": "fp32"})
    config, split = cell.config(data, 5), prepared(cell, data)
    torch.manual_seed(5)
    model = build_model(ModelConfig.from_train(config, split.num_items)).to(device)
    eager = copy.deepcopy(model)
    loss = loss_of(cell, config, split)
    captured = TrainingStep(model, config, loss)
    optimizer, schedule = make_optimizer(eager, config)
    sums: list[float] = []
    expected: list[float] = []
    total = 0.0
    for step in range(6):
        inputs, targets = (epoch[step % 4] for epoch in epoch_tensors(config, split, 0, device))
        captured(inputs, targets, step)
        sums.append(float(captured.loss_sum))
        torch.manual_seed(fold_seed(config.seed, step))
        value = loss(eager, inputs, targets, step_seed(config, step))  # pyright: ignore[reportArgumentType]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        total += float(value.detach())
        expected.append(total)
    assert sums == pytest.approx(expected, rel=1e-4)
    moved = (eager.item_table - model.item_table).abs().max() / eager.item_table.abs().max()
    assert float(moved) < 1e-2


@pytest.mark.parametrize("method", [METHODS[0], METHODS[1], METHODS[6], METHODS[10]], ids=lambda method: method.name)
def test_times_of_a_cell(method: Method, data: Path):
    times = measure_cell(Cell(SMALL, method), data, torch.device("cuda"))
    values = [float(str(times[name])) for name in ("loss_ms", "step_ms", "loss_mib", "step_mib")]
    assert all(0 < value < 1000 for value in values)
    assert values[0] < values[1]
