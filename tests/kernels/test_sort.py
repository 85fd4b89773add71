"""The kernels' sort of rows is a stable sort."""

from __future__ import annotations

import pytest
import torch
from cce_minus.kernels import UniformNegatives
from cce_minus.kernels.launch.programs import Program
from cce_minus.kernels.launch.sorting import sort_rows
from cce_minus.kernels.plan.buffers import MOST_SORTED_ROWS, SORTED_TILE, sort_buffers, table_buffer
from cce_minus.kernels.plan.problem import Choices, Problem, Shapes, Wanted, build_problem
from cce_minus.kernels.plan.tiles import Gpu
from cce_minus.torch_impl.loss.ops import _table, num_keys

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
V = 5000


def problem(num_rows: int, wanted: Wanted = Wanted()) -> Problem:  # noqa: B008
    shapes = Shapes(num_rows, 16, V, "float32", "float32", None, None, Gpu(132, 90))
    choices = Choices(None, True, -100, False, None, "uniform", False)
    return build_problem(shapes, choices, UniformNegatives(8, 16).draw(V), wanted)


@pytest.mark.parametrize("num_rows", [1, 2, SORTED_TILE - 1, SORTED_TILE, SORTED_TILE + 1, 3 * SORTED_TILE + 7])
@pytest.mark.parametrize("different", [1, 7, V])
def test_it_is_torchs_stable_sort(num_rows: int, different: int):
    p = problem(num_rows)
    tables = torch.full(table_buffer(p).shape, -5, dtype=torch.int32, device=DEVICE)
    keys = _table(tables, "positive_key", p, num_keys(p))
    generator = torch.Generator().manual_seed(num_rows)
    keys.copy_(torch.randint(0, different, (num_rows,), generator=generator))
    keys[::5] = 2**31 - 1  # rows without a target
    outs = {b.name: torch.full(b.shape, -7, dtype=torch.int32, device=DEVICE) for b in sort_buffers(p)}
    Program(sort_rows(p)).run({"tables": tables, **outs})
    want_keys, want_rows = torch.sort(keys, stable=True)
    assert torch.equal(outs["sorted_keys"], want_keys)
    assert torch.equal(outs["sorted_rows"].long(), want_rows)


def test_many_rows_are_the_frameworks_to_sort():
    assert sort_buffers(problem(MOST_SORTED_ROWS))
    assert not sort_buffers(problem(MOST_SORTED_ROWS + 1))
    assert not sort_buffers(problem(8, Wanted(weight=False, bias=False)))


@pytest.mark.gpu
def test_many_tiles():
    test_it_is_torchs_stable_sort(MOST_SORTED_ROWS - 3, 3000)
