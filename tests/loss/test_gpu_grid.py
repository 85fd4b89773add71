"""On a GPU: every pair of mode, dtype and width; fp32 accuracy; repeatability; sizes beyond 2^31; no wait for the
device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.kernels import (
    HardNegatives,
    History,
    InBatchNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    negative_ids,
)
from cce_minus.kernels.launch import programs
from cce_minus.torch_impl import AllItems, sampled_linear_binary_cross_entropy, sampled_linear_cross_entropy

from tests.inputs import Case
from tests.loss.expected import assert_right, expected
from tests.loss.run_torch import run_torch
from tests.oracle import oracle
from tests.tolerance import FLOOR, errors

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDTHS = (32, 50, 64, 100, 128, 256, 320, 512, 600)
MODES = {
    "grouped": {"num_negatives": 130, "group_size": 64},
    "independent": {"num_negatives": 70},
    "membership": {"num_negatives": 300},
    "all": {},
    "shared_ids": {"num_negatives": 100},
    "row_ids": {"num_negatives": 40},
    "lists": {"num_negatives": 192, "group_size": 64, "sampler": "popularity"},
    "mixed": {"num_negatives": 130, "group_size": 64, "sampler": "mixed", "knows_q": True},
    "hard": {"num_negatives": 128, "group_size": 64, "sampler": "hard", "pool": 300},
    "history": {"num_negatives": 130, "group_size": 64, "has_history": True},
    "history, independent": {"num_negatives": 70, "has_history": True},
    "binary": {"num_negatives": 130, "group_size": 64, "positive_weight": 1.0, "upstream": "loss"},
    "binary, independent": {"num_negatives": 70, "positive_weight": 1.0, "upstream": "loss"},
}
KINDS = {
    "membership": "independent", "lists": "grouped", "mixed": "grouped", "hard": "grouped", "history": "grouped",
    "history, independent": "independent", "binary": "grouped", "binary, independent": "independent",
}  # fmt: skip


def grid_case(mode: str, dim: int) -> Case:
    kind = KINDS.get(mode, mode)
    return Case(
        f"grid-{mode}-{dim}",
        "pairwise",
        kind,  # type: ignore[arg-type]
        150,
        500,
        dim,
        ignored="some",
        has_bias=dim % 64 == 0,
        **MODES[mode],
    )  # type: ignore[arg-type]


# with a third of the dtypes each, every (mode, width), (mode, dtype) and (width, dtype) occurs
GRID = [(mode, dim, DTYPES[(i + j) % 3]) for i, mode in enumerate(MODES) for j, dim in enumerate(WIDTHS)]


@pytest.mark.parametrize(("mode", "dim", "dtype"), GRID, ids=str)
def test_pairwise(mode: str, dim: int, dtype: torch.dtype):
    want = expected(grid_case(mode, dim), dtype)
    assert_right(run_torch(want, "triton", "cuda"), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_fp32_error_is_below_1e_5(mode: str, dim: int):
    assert not torch.backends.cuda.matmul.allow_tf32
    want = expected(grid_case(mode, dim))
    result = run_torch(want, "triton", "cuda")
    for name in ("dhidden", "dtable", "loss" if mode.startswith("binary") else "lse"):
        found = errors(np.asarray(getattr(result, name)), getattr(want.truth, name))
        assert found["relative L2 error"] < 1e-5, (name, found)


def tensors(rows: int, items: int, dim: int, dtype: torch.dtype = torch.bfloat16):
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(rows, dim, generator=generator, device="cuda", dtype=dtype).requires_grad_()
    table = (
        torch.empty(items, dim, device="cuda", dtype=dtype).normal_(0, dim**-0.5, generator=generator).requires_grad_()
    )
    return hidden, table, torch.randint(0, items, (rows,), generator=generator, device="cuda")


def negatives_of(mode: str, rows: int, items: int):
    if mode in ("shared_ids", "row_ids"):
        shape = (500,) if mode == "shared_ids" else (rows, 40)
        return torch.randint(0, items, shape, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    mode = (
        mode.removeprefix("binary, ")
        .removeprefix("history, ")
        .replace("binary", "grouped")
        .replace("history", "grouped")
    )
    return {
        "lists": PopularityNegatives(1e5 / np.arange(1, items + 1), 512),
        "mixed": MixedNegatives(UniformNegatives(300), InBatchNegatives()), "hard": HardNegatives(400, 100),
        "grouped": UniformNegatives(512), "independent": UniformNegatives(100, 1),
        "membership": UniformNegatives(items - 5, 1), "all": AllItems(),
    }[mode]  # fmt: skip


def keywords_of(mode: str, rows: int, items: int) -> dict[str, Any]:
    """What a mode's call takes beside its negatives."""
    keywords: dict[str, Any] = {}
    if mode == "mixed":
        keywords["log_q"] = torch.full((items,), -float(np.log(items)), device="cuda")
    if mode.startswith("history"):
        offsets = torch.tensor([0, 0, items // 2, items // 2 + 3], device="cuda")
        owned = torch.cat([torch.arange(items // 2, device="cuda") * 2, torch.tensor([1, 5, items - 1], device="cuda")])
        keywords["history"] = History(torch.arange(rows, device="cuda") % 3, offsets, owned)
    return keywords


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_two_runs_are_bitwise_equal(mode: str, dtype: torch.dtype):
    rows, items = 2000, 3000 if mode == "membership" else 20_000
    hidden, table, target = tensors(rows, items, 128, dtype)
    target[::2] = 7  # a popular target: its gradient is a long sum
    bias = torch.randn(items, device="cuda", dtype=dtype, requires_grad=True)
    runs = []
    for _ in range(2):
        arguments = (hidden, table, target, negatives_of(mode, rows, items))
        if mode.startswith("binary"):
            loss = lse = sampled_linear_binary_cross_entropy(*arguments, linear_bias=bias, seed=5)
        else:
            keywords = keywords_of(mode, rows, items)
            loss, lse = sampled_linear_cross_entropy(*arguments, linear_bias=bias, seed=5, return_lse=True, **keywords)
        runs.append((loss, lse, *torch.autograd.grad(loss + lse.mean(), (hidden, table, bias))))
        torch.randn(10_000_000, device="cuda").sum()  # other work between the runs moves memory and schedules
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


def check_rows(hidden, table, target, sampler: UniformNegatives, rows: np.ndarray, results) -> None:
    """Loss, lse and input gradient of some rows against the oracle on just the items they name."""
    loss, lse, grad = results
    all_ids = (
        negative_ids(sampler, num_rows=len(target), num_items=len(table), seed=9) if sampler.group_size == 1 else None
    )
    # all groups at once would be gigabytes: take those of the rows
    ids = grouped_ids(sampler, len(target), len(table), rows) if all_ids is None else all_ids[rows]
    wanted = target[torch.from_numpy(rows).cuda()].cpu().numpy()
    items, places = np.unique(np.concatenate([ids.ravel(), wanted]), return_inverse=True)
    small_hidden, small_table = (
        x.detach()[torch.from_numpy(index).cuda()].float().cpu().numpy()
        for x, index in ((hidden, rows), (table, items))
    )
    truth = oracle(
        small_hidden, small_table, places[ids.size :], places[: ids.size].reshape(ids.shape),
        grad_loss=np.ones(len(rows)), catalog_size=len(table),
    )  # fmt: skip
    for name, got, want in (("loss", loss, truth.loss), ("lse", lse, truth.lse), ("dhidden", grad, truth.dhidden)):
        part = got.detach()[torch.from_numpy(rows).cuda()].double().cpu().numpy()
        found = errors(part, want)
        assert max(found.values()) < 2 * FLOOR[torch.bfloat16], (name, found)


def grouped_ids(sampler: UniformNegatives, num_rows: int, num_items: int, rows: np.ndarray) -> np.ndarray:
    from cce_minus.kernels.draws import permutation as pm
    from cce_minus.kernels.draws.uniform import GroupedDraws, row_places

    draws = GroupedDraws(num_items, sampler.num_negatives, sampler.group_size, sampler.shuffle_rows)
    seed = pm.NUMPY.u32(0), pm.NUMPY.u32(9)
    groups = row_places(pm.NUMPY, seed, rows, num_rows, sampler.shuffle_rows) // sampler.group_size
    return draws.items(pm.NUMPY, seed, groups).astype(np.int64)


BIG = {
    "table": (512, 9_000_000, 256, UniformNegatives(256)),  # V D > 2^31
    "table, independent": (512, 9_000_000, 256, UniformNegatives(256, 1)),
    "rows": (8_500_000, 1000, 256, UniformNegatives(16, 256)),  # N D > 2^31
    "draws": (40_000, 1_000_000, 64, UniformNegatives(65_536)),  # N K > 2^31
}


@pytest.mark.parametrize("name", BIG)
def test_sizes_beyond_int32(name: str):
    rows, items, dim, sampler = BIG[name]
    hidden, table, target = tensors(rows, items, dim)
    loss, lse = sampled_linear_cross_entropy(hidden, table, target, sampler, seed=9, reduction="none", return_lse=True)
    hidden_grad, table_grad = torch.autograd.grad(loss.sum(), (hidden, table))
    chosen = np.array([0, 1, rows // 2, rows - 2, rows - 1])
    check_rows(hidden, table, target, sampler, chosen, (loss, lse, hidden_grad))
    # each row's gradients over the table sum to the dot product of its softmax with ones: dC summed over items is
    # sum_n e_n (sum_j p_nj - 1) = 0 in every column
    size = table_grad.float().abs().sum(0)
    assert bool((table_grad.float().sum(0).abs() < 0.02 * size).all())
    assert bool((table_grad[-1000:].float().abs().sum(1) > 0).any()), "the last items have gradients too"


@pytest.mark.parametrize("mode", MODES)
def test_no_wait_for_the_device_and_graph_capture(mode: str):
    rows, items = 300, 700
    hidden, table, target = tensors(rows, items, 64)
    target[::3] = -100
    negatives = negatives_of(mode, rows, items) if mode != "grouped" else UniformNegatives(100, 16)
    seed = torch.tensor([3], device="cuda")
    keywords = keywords_of(mode, rows, items)
    function = sampled_linear_binary_cross_entropy if mode.startswith("binary") else sampled_linear_cross_entropy

    def step():
        hidden.grad = table.grad = None
        loss = function(hidden, table, target, negatives, seed=seed, **keywords)
        loss.backward()
        assert hidden.grad is not None
        assert table.grad is not None
        return loss.detach(), hidden.grad, table.grad

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        eager = [t.clone() for t in step()]  # compiles
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    for got, want in zip(captured, eager, strict=True):
        assert torch.equal(got, want)
    seed.fill_(4)
    graph.replay()
    if mode not in ("all", "membership", "shared_ids", "row_ids", "binary, independent"):
        assert not torch.equal(captured[0], eager[0]), "a replay with another seed draws anew"


@pytest.mark.parametrize("mode", MODES)
def test_another_number_of_rows_compiles_nothing(mode: str):
    """Of jagged batches all are different; a kernel may be compiled for those that 16 divides, and for others."""
    compiled = []
    for rows in (2000, 1999, 1777, 1984, 2003, 1998):
        hidden, table, target = tensors(rows, 3000, 64)
        function = sampled_linear_binary_cross_entropy if mode.startswith("binary") else sampled_linear_cross_entropy
        negatives, keywords = negatives_of(mode, rows, 3000), keywords_of(mode, rows, 3000)
        function(hidden, table, target, negatives, seed=3, **keywords).backward()
        compiled.append(len(programs._variants))
    assert len(set(compiled[1:])) == 1, compiled


def test_out_of_range_rows_are_nan_without_an_illegal_access():
    hidden, table, target = tensors(300, 700, 64)
    target[[3, 70]] = torch.tensor([700, -5], device="cuda")
    for negatives in (UniformNegatives(100), UniformNegatives(100, 1), AllItems()):
        loss = sampled_linear_cross_entropy(hidden, table, target, negatives, seed=1, reduction="none")
        assert torch.isnan(loss).nonzero().flatten().tolist() == [3, 70]
        loss.sum().backward()
    ids = torch.randint(0, 700, (300, 8), device="cuda")
    ids[5, 2], ids[6, 1] = 10**12, -2
    loss = sampled_linear_cross_entropy(hidden, table, target.clamp(0, 699), ids, reduction="none")
    assert torch.isnan(loss).nonzero().flatten().tolist() == [5, 6]
    loss.sum().backward()
    torch.cuda.synchronize()
