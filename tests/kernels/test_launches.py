"""Every Triton kernel of the project runs in these tests."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from cce_minus.kernels.launch import group_draw as group_draw_launch
from cce_minus.kernels.launch import loss as launch
from cce_minus.kernels.launch import nearest as nearest_launch
from cce_minus.kernels.launch import normals as normal_launch
from cce_minus.kernels.launch import ranking as ranking_launch
from cce_minus.kernels.launch import row_copy as row_copy_launch
from cce_minus.kernels.launch import row_read as row_read_launch
from cce_minus.kernels.launch import row_update as row_update_launch
from cce_minus.kernels.plan import nearest
from cce_minus.kernels.plan.ranking import plan_ranking
from cce_minus.recsys import SeenItems
from cce_minus.torch_impl import (
    AllItems,
    HardNegatives,
    History,
    InBatchNegatives,
    LogUniformNegatives,
    UniformNegatives,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
    working_set,
)
from cce_minus.torch_impl.loss import known_calls
from cce_minus.torch_impl.serving.ranking import Seen, rank_by_kernels
from cce_minus.torch_impl.tables.item_table import ItemTable
from cce_minus.torch_impl.tables.optimizers import RowWiseAdagrad
from cce_minus.torch_impl.tables.read import read_rows
from cce_minus.torch_impl.tables.row_copies import Moved, fetch_rows, refresh_rows
from cce_minus.torch_impl.tables.row_set import row_set

DEVICE = Path(__file__).parents[2] / "kernels" / "device"


def jit_functions() -> dict[str, ast.FunctionDef]:
    """module.function -> its definition, for every function under ``@triton.jit``."""
    found = {}
    for path in sorted(DEVICE.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(d) for d in node.decorator_list):
                found[f"{path.stem}.{node.name}"] = node
    return found


def entry_points() -> set[str]:
    """The jit functions that no other one names: the kernels, and any device function left over."""
    functions = jit_functions()
    named = {node.id for function in functions.values() for node in ast.walk(function) if isinstance(node, ast.Name)}
    return {name for name in functions if name.split(".")[1] not in named}


def test_every_kernel_is_launched(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    launched = set()

    class Recorder:
        def __init__(self, name: str, kernel) -> None:
            self.name, self.kernel = name, kernel

        def __getattr__(self, attribute: str):
            return getattr(self.kernel, attribute)

        def __getitem__(self, grid):
            launched.add(self.name)
            return self.kernel[grid]

        def warmup(self, *args, **kwargs):  # compiles what is launched next
            launched.add(self.name)
            return self.kernel.warmup(*args, **kwargs)

    programs = (
        launch.forward_program,
        launch.backward_program,
        launch.pool_program,
        group_draw_launch.group_draw_program,
        normal_launch.normal_program,
        nearest_launch.nearest_program,
        ranking_launch.ranking_program,
        row_read_launch.row_read_program,
        row_copy_launch.row_copy_program,
        row_copy_launch.row_refresh_program,
        row_update_launch.row_update_program,
        known_calls._plan,
    )
    for program in programs:
        program.cache_clear()
        request.addfinalizer(program.cache_clear)

    names = entry_points()
    assert len(names) >= 9
    for name in names:
        module_name, function = name.split(".")
        module = importlib.import_module(f"cce_minus.kernels.device.{module_name}")
        monkeypatch.setattr(module, function, Recorder(name, getattr(module, function)))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    hidden = torch.randn(70, 16, device=device, requires_grad=True)
    table = torch.randn(200, 16, device=device, requires_grad=True)
    target = torch.arange(70, device=device) % 40
    history = History(target % 2, torch.tensor([0, 2, 3], device=device), torch.tensor([4, 7, 50], device=device))
    samplers = (
        UniformNegatives(8, 16),
        UniformNegatives(3, 1),
        AllItems(),
        LogUniformNegatives(16, 16),
        InBatchNegatives(16),
        HardNegatives(20, 8, 16),
    )
    for negatives in samplers:
        log_q = torch.full((200,), -5.0, device=device) if isinstance(negatives, InBatchNegatives) else None
        loss = sampled_linear_cross_entropy(
            hidden,
            table,
            target,
            negatives,
            seed=1,
            impl="triton",
            log_q=log_q,
            history=history if log_q is None else None,
        )
        loss.backward()  # type: ignore[union-attr]
    given = working_set(UniformNegatives(8, 16), target, num_items=200, seed=1, impl="triton")
    rows = table.detach()[given.ids]
    sampled_linear_cross_entropy(hidden, rows, given.target, given, impl="triton").backward()
    # kernels sort the rows of plain calls
    sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(8, 16), seed=1, impl="triton").backward()
    monkeypatch.setattr(nearest, "MOST_SELECTED_FROM", 128)  # so few items are few enough for blocks
    scalable_linear_cross_entropy(
        hidden, table, target, n_buckets=2, bucket_size_x=20, bucket_size_y=1, seed=1, impl="triton"
    ).backward()
    plans = plan_ranking(70, 200, 16, 2, True, 1)
    assert plans is not None
    seen = Seen.of(SeenItems(np.zeros(1, np.int32), np.zeros(1, np.int32)), 70, torch.device(device))
    rank_by_kernels(plans, hidden.detach(), table.detach(), target, seen)
    items = ItemTable(9, 16, device=device)
    items(row_set(torch.tensor([3, 1], device=device))).sum().backward()
    RowWiseAdagrad(items, impl="triton").step()
    ids, count = torch.tensor([1, 3], device=device, dtype=torch.int32), torch.ones(1, device=device, dtype=torch.int32)
    read_rows(items.weight.detach(), ids, impl="triton")
    rows = fetch_rows(items.weight.detach(), ids, impl="triton")
    refresh_rows(rows, ids, Moved(ids, count, rows.clone()), impl="triton")
    assert launched == names, f"never launched: {names - launched}"
