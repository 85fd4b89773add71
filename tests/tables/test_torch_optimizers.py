"""PyTorch's item tables and their optimizers: trajectories against float64 and torch's own, and what optimizers do."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.kernels import ArgumentValueError
from cce_minus.torch_impl import UniformNegatives, rows_of, sampled_linear_cross_entropy, working_set
from cce_minus.torch_impl.tables.item_table import ItemTable
from cce_minus.torch_impl.tables.optimizers import LazyAdam, PartialRowWiseAdam, RowOptimizer, RowWiseAdagrad
from cce_minus.torch_impl.tables.row_set import row_set
from torch import Tensor

from tests.tables.oracle import Table, updated

OPTIMIZERS = {"rowwise_adagrad": RowWiseAdagrad, "partial_rowwise_adam": PartialRowWiseAdam, "lazy_adam": LazyAdam}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ITEMS, DIM = 50, 12


def table_of(seed: int = 0, **options: Any) -> ItemTable:
    torch.manual_seed(seed)
    return ItemTable(ITEMS, DIM, device=DEVICE, **options)


def steps_of(number: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Ids, which repeat and have holes, and a factor for each."""
    rng = np.random.default_rng(seed)
    ids = [np.where(rng.random(17) < 0.2, -1, rng.integers(0, ITEMS, 17)) for _ in range(number)]
    factors = [rng.standard_normal((17, DIM)).astype(np.float32) for _ in range(number)]
    return [(torch.tensor(i, device=DEVICE), torch.tensor(f, device=DEVICE)) for i, f in zip(ids, factors, strict=True)]


def loss_of(table: ItemTable, ids: Tensor, factors: Tensor) -> Tensor:
    rows = row_set(ids)
    values = table(rows)
    read = torch.where((rows.places >= 0)[:, None], values[rows.places.clamp(min=0)], 0.0)
    return (read * factors).sum()


def train(table: ItemTable, optimizer: torch.optim.Optimizer, steps: list[tuple[Tensor, Tensor]]) -> None:
    for ids, factors in steps:
        optimizer.zero_grad()
        loss_of(table, ids, factors).backward()
        optimizer.step()


def grad_of(ids: Tensor, factors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ids and the gradient of each, float64."""
    given, each = ids.cpu().numpy(), factors.cpu().numpy().astype(np.float64)
    distinct = np.unique(given[given >= 0])
    return distinct, np.stack([each[given == item].sum(0) for item in distinct])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_trajectories_are_those_of_float64(name: str, impl: str):
    table, steps = table_of(), steps_of(8)
    optimizer: RowOptimizer = OPTIMIZERS[name](table, lr=0.03, weight_decay=0.1, impl=impl)
    rule = optimizer._rule_of(optimizer.param_groups[0])
    shape = rule.second_shape(ITEMS, DIM)
    expected = Table(table.weight.detach().cpu().numpy().astype(np.float64), np.zeros((ITEMS, DIM)), np.zeros(shape))
    for number, step in enumerate(steps, start=1):
        expected = updated(expected, rule, *grad_of(*step), 0.03, number)
    train(table, optimizer, steps)
    np.testing.assert_allclose(table.weight.detach().cpu().numpy(), expected.weight, rtol=1e-5, atol=1e-6)
    state = optimizer.state[table.weight]
    np.testing.assert_allclose(state["second"].cpu().numpy(), expected.second, rtol=1e-5, atol=1e-7)
    assert state["step"].item() == len(steps)


def test_lazy_adam_is_torchs_sparse_adam():
    ours, theirs, steps = table_of(), table_of(sparse=True), steps_of(12)
    train(ours, LazyAdam(ours, lr=0.02), steps)
    train(theirs, torch.optim.SparseAdam(theirs.parameters(), lr=0.02), steps)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours.weight, table_of().weight)


def test_rows_read_twice_in_a_step_move_once_by_the_sum():
    one, two = table_of(), table_of()
    (ids, factors), (more, others) = steps_of(2)
    optimizer = RowWiseAdagrad(one, lr=0.1)
    loss_of(one, torch.cat([ids, more]), torch.cat([factors, others])).backward()
    optimizer.step()
    optimizer = RowWiseAdagrad(two, lr=0.1)
    loss_of(two, ids, factors).backward()
    loss_of(two, more, others).backward()
    optimizer.step()
    torch.testing.assert_close(one.weight, two.weight, rtol=1e-5, atol=1e-7)
    assert two.touched == []


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_optimizer_continues_bit_for_bit(name: str, dtype: torch.dtype):
    steps = steps_of(6)
    whole = table_of(dtype=dtype)
    train(whole, OPTIMIZERS[name](whole, lr=0.1, seed=3), steps)
    first = table_of(dtype=dtype)
    optimizer = OPTIMIZERS[name](first, lr=0.1, seed=3)
    train(first, optimizer, steps[:3])
    file = io.BytesIO()
    torch.save({"table": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = table_of(5, dtype=dtype)
    second.load_state_dict(saved["table"])
    again = OPTIMIZERS[name](second, lr=0.7, seed=3)
    again.load_state_dict(saved["optimizer"])
    assert all(value.dtype == torch.float32 for key, value in again.state[second.weight].items() if key != "step")
    train(second, again, steps[3:])
    assert torch.equal(second.weight, whole.weight)


def test_learning_rates_follow_a_schedule_and_a_tensor():
    one, two, steps = table_of(), table_of(), steps_of(4)
    optimizer = RowWiseAdagrad(one, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    rate = torch.tensor(1.0, device=DEVICE)
    other = RowWiseAdagrad(two, lr=rate)
    for step in steps:
        train(one, optimizer, [step])
        schedule.step()
        train(two, other, [step])
        rate.mul_(0.5)
    assert torch.equal(one.weight, two.weight)


def test_tables_in_bfloat16_are_rounded_by_bits_of_their_own():
    tables, steps = [table_of(0, dtype=torch.bfloat16), table_of(0, dtype=torch.bfloat16)], steps_of(3)
    optimizer = LazyAdam(tables[:1], lr=0.01)
    optimizer.add_param_group({"params": tables[1]})
    for ids, factors in steps:
        (loss_of(tables[0], ids, factors) + loss_of(tables[1], ids, factors)).backward()
        optimizer.step()
    assert not torch.equal(tables[0].weight, tables[1].weight)
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=2**-5, atol=2**-7)


def test_states_of_another_rule_are_refused():
    table = table_of()
    optimizer = PartialRowWiseAdam(table)
    train(table, optimizer, steps_of(1))
    for other in (LazyAdam(table), RowWiseAdagrad(table)):
        with pytest.raises(ArgumentValueError, match="state_dict: expected states of shapes"):
            other.load_state_dict(optimizer.state_dict())


def test_a_copied_optimizer_moves_the_copied_table():
    table = table_of()
    optimizer = LazyAdam(table, lr=0.1)
    train(table, optimizer, steps_of(2))
    before = table.weight.detach().clone()
    other_table, other = copy.deepcopy((table, optimizer))
    train(other_table, other, steps_of(1, seed=9))
    assert torch.equal(table.weight, before)
    train(table, optimizer, steps_of(1, seed=9))
    assert torch.equal(table.weight, other_table.weight)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_torchs_default_dtype_has_no_part_in_it(default: torch.dtype):
    tables, steps = [table_of(dtype=torch.bfloat16) for _ in range(2)], steps_of(3)
    train(tables[0], LazyAdam(tables[0], lr=1e-3), steps)
    torch.set_default_dtype(default)
    try:
        train(tables[1], LazyAdam(tables[1], lr=1e-3), steps)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(tables[0].weight, tables[1].weight)


def test_groups_have_options_of_their_own():
    tables, steps = [table_of(0), table_of(1)], steps_of(2)
    before = [table.weight.detach().clone() for table in tables]
    optimizer = RowWiseAdagrad([{"params": tables[0], "lr": 0.0}, {"params": [tables[1]]}], lr=0.1)
    for ids, factors in steps:
        (loss_of(tables[0], ids, factors) + loss_of(tables[1], ids, factors)).backward()
        optimizer.step()
    assert torch.equal(tables[0].weight, before[0])
    assert not torch.equal(tables[1].weight, before[1])


@pytest.mark.parametrize("updates", [1000, pytest.param(10_000, marks=pytest.mark.gpu)])
def test_many_updates_in_bfloat16_end_as_in_float32(updates: int):
    """A regression with steps below a bfloat16's resolution: at random they add up, to the nearest they are lost."""

    def loss_after(dtype: torch.dtype, **options: Any) -> float:
        torch.manual_seed(0)
        table, wanted = ItemTable(24, 8, dtype=dtype, std=1.0, device=DEVICE), torch.randn(24, 8, device=DEVICE)
        optimizer = RowWiseAdagrad(table, lr=0.05, **options)
        every = row_set(torch.arange(24, device=DEVICE))
        noise = torch.Generator(DEVICE).manual_seed(1)
        for _ in range(updates):
            targets = wanted + torch.randn(24, 8, generator=noise, device=DEVICE)
            (table(every) - targets).square().mean().mul(0.5 * 8).backward()
            optimizer.step()
        # what cannot be learned is part of the loss, as of any
        return float((table.weight.detach().float() - wanted).square().mean()) + 1.0

    exact = loss_after(torch.float32)
    assert loss_after(torch.bfloat16) == pytest.approx(exact, rel=5e-3)
    assert abs(loss_after(torch.bfloat16, stochastic_rounding=False) / exact - 1) > 5e-3


def test_the_operator_is_as_torch_wants_it():
    table = table_of()
    rows = row_set(torch.tensor([4, 2, 9], device=DEVICE))
    state = torch.zeros(ITEMS, device=DEVICE), torch.zeros(ITEMS, DIM, device=DEVICE)
    rate, step = torch.tensor([0.1], device=DEVICE), torch.ones(1, dtype=torch.int32, device=DEVICE)
    grad = torch.ones(3, DIM, device=DEVICE)
    for rule, first, second in ((0, None, state[0]), (1, state[1], state[0]), (2, state[1], state[1].clone())):
        torch.library.opcheck(
            torch.ops.cce_minus.update_rows.default,
            (table.weight.detach(), first, second, rows.ids, rows.count, grad, rate, step, None, rule, 0.9, 0.99, 1e-8,
             0.0, False, DEVICE == "cpu"),
        )  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_draws_losses_and_updates_are_single_graphs(name: str, dtype: torch.dtype):
    """`rows_of` and ``update`` are what a table's call and ``step`` do, with the same bits compiled."""

    def trained(run: Any) -> Tensor:
        torch.manual_seed(0)
        table = ItemTable(4000, 8, dtype=dtype, device=DEVICE)
        optimizer = OPTIMIZERS[name](table, lr=torch.tensor(0.1, device=DEVICE))
        hidden, target = torch.randn(32, 8, device=DEVICE), torch.arange(32, device=DEVICE) * 7

        def draw(seed: Tensor) -> Any:
            given = working_set(UniformNegatives(4, 16), target, num_items=4000, seed=seed)
            return given, rows_of(table.weight, given)

        def loss_of(rows: Tensor, given: Any) -> Tensor:
            return sampled_linear_cross_entropy(hidden, rows, given.target, given)

        def move(given: Any, grad: Tensor) -> None:
            optimizer.update(table, given, grad)

        draws, losses, moves = (run(function) for function in (draw, loss_of, move))
        for number in range(3):
            given, rows = draws(torch.tensor([number], device=DEVICE))
            if run is step_by_step:
                rows = table(given)
            losses(rows.requires_grad_(), given).backward()
            if run is step_by_step:
                optimizer.step()
            else:
                moves(given, rows.grad)
        return table.weight.detach()

    def step_by_step(function: Any) -> Any:
        return function

    expected = trained(step_by_step)
    assert torch.equal(trained(lambda function: function), expected)
    assert torch.equal(trained(lambda f: torch.compile(f, fullgraph=True, backend="aot_eager")), expected)


def test_updates_of_what_is_none_of_its_tables_are_refused():
    table, rows = table_of(), row_set(torch.tensor([1, 5], device=DEVICE))
    optimizer = RowWiseAdagrad(table)
    with pytest.raises(ArgumentValueError, match=r"grad: expected shape \(2, 12\), got \(3, 12\)"):
        optimizer.update(table, rows, torch.ones(3, DIM, device=DEVICE))
    with pytest.raises(ArgumentValueError, match="table: expected one of the optimizer's tables, got another"):
        optimizer.update(table_of(), rows, torch.ones(2, DIM, device=DEVICE))
