"""The study on a GPU: a captured step is the training command's step, and the times of a cell are written into its
rows."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.steps import epoch_steps
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.training.objective import objective_of
from cce_minus.torch_impl.training.steps import TrainingSteps

from benchmarks.study.cells import METHODS, Cell, Dataset, Method
from benchmarks.study.timing import measure_cell
from benchmarks.study.training import loss_of, prepared
from tests.training.runs import eager_steps

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
    """From the same weights, the same batches, dropout, draws and rates: losses of eight steps, and the item table
    after them."""
    device = torch.device("cuda")
    cell = Cell(SMALL, method, {"precision": "fp32"})
    config, split = cell.config(data, 5), prepared(cell, data)
    tables, losses = [], []
    for steps_are in (contextlib.nullcontext, eager_steps):
        torch.manual_seed(5)
        model = build_model(ModelConfig.from_train(config, split.num_items)).to(device)
        options: dict[str, Any] = {"sequences": split.train, "loss": loss_of(cell)}
        with steps_are():
            train = TrainingSteps(model, config, objective_of(config, split), contextlib.nullcontext, **options)
        portions = [train(steps) for epoch in (0, 1) for steps in epoch_steps(config, split, epoch, on_device=True)]
        losses.append(torch.cat(portions).tolist())
        tables.append(model.item_table.detach())
    assert len(losses[0]) >= 8
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    moved = (tables[0] - tables[1]).abs().max() / tables[1].abs().max()
    assert float(moved) < 1e-2


@pytest.mark.parametrize("method", [METHODS[0], METHODS[1], METHODS[6], METHODS[10]], ids=lambda method: method.name)
def test_times_of_a_cell(method: Method, data: Path):
    times = measure_cell(Cell(SMALL, method), data, torch.device("cuda"))
    values = [float(str(times[name])) for name in ("loss_ms", "step_ms", "loss_mib", "step_mib")]
    assert all(0 < value < 1000 for value in values)
    assert values[0] < values[1]
