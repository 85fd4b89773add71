"""Tables in the host's memory: the same bits as in the GPU's, with rows fetched a step ahead."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cce_minus.kernels import ArgumentTypeError, ArgumentValueError
from cce_minus.kernels.plan import row_copy
from cce_minus.torch_impl import ItemTable, LazyAdam, RowWiseAdagrad, row_set
from cce_minus.torch_impl.tables import fetched_rows, host_memory
from cce_minus.torch_impl.tables.host_memory import HostMemoryError, host_tensor
from cce_minus.torch_impl.tables.row_copies import Moved, fetch_rows, refresh_rows, write_rows
from cce_minus.torch_impl.tables.row_set import RowSet
from torch import Tensor

from tests.tables.run import DEVICE

ITEMS, DIM, STEPS = 60, 24, 6


def batches() -> list[Tensor]:
    """Ids of which most come in successive steps, and some come twice."""
    torch.manual_seed(1)
    return [torch.randint(ITEMS, (40,), device=DEVICE) for _ in range(STEPS)]


def table_of(dtype: torch.dtype = torch.float32, *, host: bool) -> ItemTable:
    torch.manual_seed(0)
    return ItemTable(ITEMS, DIM, dtype=dtype, device=DEVICE, host=host)


def trained(table: ItemTable, kind: Any, *, fetches: bool) -> Tensor:
    optimizer = kind(table, lr=0.1)
    sets = [row_set(ids) for ids in batches()]
    for number, rows in enumerate(sets):
        values = table(rows)
        if fetches and number + 1 < STEPS:
            table.fetch(sets[number + 1])
        (values[rows.places.long()].square() * 0.5).sum().backward()
        optimizer.step()
    table.settle()
    return table.weight.detach().clone()


@pytest.mark.parametrize("kind", [RowWiseAdagrad, LazyAdam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_reads_the_newest_rows(kind: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    expected = trained(table_of(dtype, host=False), kind, fetches=False)
    for host, fetches in ((True, False), (True, True), (False, True)):
        assert torch.equal(trained(table_of(dtype, host=host), kind, fetches=fetches), expected)
    monkeypatch.setattr(fetched_rows, "refresh_rows", lambda *_: None)  # then rows are a step old
    if DEVICE == "cpu":
        assert not torch.equal(trained(table_of(dtype, host=True), kind, fetches=True), expected)


def test_rows_that_were_not_fetched_are_read():
    table = table_of(host=True)
    optimizer = RowWiseAdagrad(table, lr=0.1)
    first, second = (row_set(torch.tensor(ids, device=DEVICE)) for ids in ([3, 4, 5], [4, 5, 6]))
    table.fetch(first)
    assert torch.equal(table(second).detach(), table.weight.detach()[4:7])
    table(first).sum().backward()
    optimizer.step()
    assert torch.equal(table(first).detach(), table.weight.detach()[3:6])


@pytest.mark.parametrize("host", [False, True])
def test_states_are_loaded_where_they_are(host: bool):
    table = table_of(host=not host)
    optimizer, other = LazyAdam(table, lr=0.1), LazyAdam(table_of(host=host), lr=0.1)
    table(row_set(torch.tensor([3], device=DEVICE))).sum().backward()
    optimizer.step()
    places = {name: state.data_ptr() for name, state in other.state_dict()["state"][0].items()}
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for name, state in other.state_dict()["state"][0].items():
        assert state.data_ptr() == places[name]
        assert torch.equal(state, optimizer.state_dict()["state"][0][name])
    assert not copy.deepcopy(table).host


def test_sparse_tables_fetch_nothing():
    table = ItemTable(ITEMS, DIM, device=DEVICE, sparse=True)
    with pytest.raises(ArgumentValueError, match="table: expected one that is not sparse, got a sparse one"):
        table.fetch(row_set(torch.tensor([3], device=DEVICE)))


def test_a_table_is_itself_again_once_it_settles():
    table = table_of(host=True)
    optimizer = RowWiseAdagrad(table, lr=0.1)
    first, second = (row_set(torch.tensor(ids, device=DEVICE)) for ids in ([3, 4, 5], [4, 5, 6]))
    table.fetch(first)
    values = table(first)
    table.fetch(second)
    values.sum().backward()
    before = table.weight.detach().clone()
    optimizer.step()
    assert torch.equal(table.weight.detach(), before)
    assert torch.equal(values.detach(), before[3:6])  # what the step has read stays what it was
    after = table.state_dict()["weight"]
    assert (after[3:6] != before[3:6]).all()
    assert torch.equal(table(second).detach(), after[4:7])
    table.fetch(first)
    assert torch.equal(table(second).detach(), after[4:7])  # what was fetched is dropped


def test_rows_that_move_in_the_table_itself_are_taken_anew():
    """By ``update``, beside what has been fetched."""
    table, other = table_of(host=True), table_of(host=False)
    first, second = (row_set(torch.tensor(ids, device=DEVICE)) for ids in ([3, 4, 5], [4, 5, 6]))
    for each in (table, other):
        if each.host:
            each.fetch(second)
        RowWiseAdagrad(each, lr=0.1).update(each, first, torch.ones(3, DIM, device=DEVICE))
    assert torch.equal(table(second), other(second))
    assert torch.equal(table.weight, other.weight)


def sets(*ids: list[int]) -> list[RowSet]:
    return [row_set(torch.tensor(each, device=DEVICE)) for each in ids]


def test_rows_move_in_the_table_itself_between_taken_and_moved():
    """What a step has taken is old then: it is not written over what ``update`` has moved."""
    moved = []
    for host in (True, False):
        table = table_of(host=host)
        optimizer, ones = RowWiseAdagrad(table, lr=0.1), torch.ones(3, DIM, device=DEVICE)
        first, second, third = sets([3, 4, 5], [4, 5, 6], [7, 8, 9])
        if host:
            table.fetch(first)
        values = table(first)
        if host:
            table.fetch(third)
        optimizer.update(table, second, ones)
        values.square().sum().backward()
        optimizer.step()
        optimizer.update(table, first, ones)
        table(third).square().sum().backward()
        optimizer.step()
        table.settle()
        moved.append(table.weight.detach().clone())
    assert torch.equal(*moved)


def with_a_step_unwritten() -> tuple[ItemTable, RowWiseAdagrad, list[RowSet]]:
    table = table_of(host=True)
    optimizer, rows = RowWiseAdagrad(table, lr=0.1), sets([3, 4, 5], [4, 5, 6])
    table.fetch(rows[0])
    values = table(rows[0])
    table.fetch(rows[1])
    values.sum().backward()
    optimizer.step()
    return table, optimizer, rows


def test_a_loaded_table_is_what_was_loaded():
    table, _, rows = with_a_step_unwritten()
    best = {"weight": torch.full((ITEMS, DIM), 2.0, device=DEVICE)}
    table.load_state_dict(best)
    assert torch.equal(table(rows[1]).detach(), best["weight"][4:7])
    table.fetch(rows[0])
    assert torch.equal(table(rows[0]).detach(), best["weight"][3:6])
    assert torch.equal(table.weight.detach(), best["weight"])


def test_copies_of_optimizers_and_tables_have_the_last_step():
    for copied in (lambda pair: copy.deepcopy(pair[1])._tables, lambda pair: [copy.deepcopy(pair[0]).weight]):
        table, optimizer, _ = with_a_step_unwritten()
        (weight,) = copied((table, optimizer))
        assert torch.equal(weight.detach(), table.state_dict()["weight"])


def test_what_cannot_be_fetched_is_refused():
    (rows,) = sets([3])
    with pytest.raises(ArgumentValueError, match=r"rows: expected device .*, the table's, got meta"):
        table_of(host=True).fetch(rows._replace(ids=rows.ids.to("meta")))
    strided = ItemTable.of(torch.randn(DIM, ITEMS, device=DEVICE).t())
    with pytest.raises(ArgumentTypeError, match="weight: expected a contiguous tensor"):
        strided.fetch(rows)


def test_memory_that_the_host_has_not_is_told(monkeypatch: pytest.MonkeyPatch):
    def refuse(size: int) -> Tensor:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(host_memory, "_pages", refuse)
    with pytest.raises(HostMemoryError, match=r"4\.0 GiB of the host's memory: .*Cannot allocate memory"):
        host_memory._Lent(2**32, torch.device("cpu"))


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [0, 1, 9])
def test_rows_that_moved_are_taken_anew(impl: str, dtype: torch.dtype, count: int):
    torch.manual_seed(0)
    table = torch.randn(ITEMS, DIM, device=DEVICE).to(dtype)
    ids = torch.randperm(ITEMS, device=DEVICE)[:30].int()
    moved = torch.randperm(ITEMS, device=DEVICE)[: max(count, 1)].int().sort().values
    moved = torch.cat([moved, moved[-1:].expand(5)]) if count else torch.zeros(5, dtype=torch.int32, device=DEVICE)
    rows = fetch_rows(table, ids, impl=impl)
    assert torch.equal(rows, table[ids.long()])
    before, now = rows.clone(), table + 1
    news = Moved(moved, torch.tensor([count], dtype=torch.int32, device=DEVICE), now[moved.long()])
    refresh_rows(rows, ids, news, impl=impl)
    again = torch.isin(ids, moved[:count])
    assert torch.equal(rows[again], now[ids.long()][again])
    assert torch.equal(rows[~again], before[~again])
    old = table.clone()
    is_moved = torch.isin(torch.arange(ITEMS, device=DEVICE), moved[:count])[:, None]
    write_rows(table, news, impl=impl)
    assert torch.equal(table, torch.where(is_moved, now, old))
    table.copy_(old)
    rows = fetch_rows(table, ids, news, impl=impl)
    assert torch.equal(table, torch.where(is_moved, now, old))
    assert torch.equal(rows[~again], before[~again])
    assert ((rows == before) | (rows == now[ids.long()])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_few_programs_copy_many_rows(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(row_copy.RowCopy, "elements", 64)
    monkeypatch.setattr(row_copy, "PROGRAMS", 3)
    table = torch.randn(ITEMS, DIM, device=DEVICE).to(dtype)
    ids = torch.randperm(ITEMS, device=DEVICE)[:37].int()
    rows = fetch_rows(table, torch.cat([ids, ids.new_tensor([-1, ITEMS])]), impl="triton")
    assert torch.equal(rows[:37], table[ids.long()])
    assert rows[37:].isnan().all()
    expected = table.clone()
    expected[ids[:29].long()] = rows[:29] + 1
    moved = Moved(ids, torch.tensor([29], dtype=torch.int32, device=DEVICE), rows[:37] + 1)
    rows = fetch_rows(table, ids[29:], moved, impl="triton")
    assert torch.equal(table, expected)
    assert torch.equal(rows, expected[ids[29:].long()])


@pytest.mark.gpu
@pytest.mark.parametrize("late", ["fetch_rows", "refresh_rows"])
def test_streams_wait_for_each_other(late: str, monkeypatch: pytest.MonkeyPatch):
    """However late one is: that of the copies, or the step's own."""
    expected = trained(table_of(host=False), RowWiseAdagrad, fetches=False)
    function = getattr(fetched_rows, late)

    def held_back(*arguments: Any) -> Any:
        torch.cuda._sleep(10_000_000)  # clocks, some milliseconds
        return function(*arguments)

    monkeypatch.setattr(fetched_rows, late, held_back)
    assert torch.equal(trained(table_of(host=True), RowWiseAdagrad, fetches=True), expected)
    for wait in ("wait_event", "wait_stream"):  # and without that they do not
        monkeypatch.setattr(torch.cuda.Stream, wait, lambda *_: None)
    assert not torch.equal(trained(table_of(host=True), RowWiseAdagrad, fetches=True), expected)


@pytest.mark.gpu
def test_host_tensors_are_of_the_gpu_and_in_the_hosts_memory():
    before = torch.cuda.memory_allocated()
    tensor = host_tensor((1000, 64), torch.bfloat16, torch.device("cuda:0"))
    assert tensor.is_cuda
    assert torch.cuda.memory_allocated() == before
    tensor.fill_(2)
    assert float(tensor.float().sum()) == 2 * 64000
