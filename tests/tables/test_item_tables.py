"""PyTorch's item tables: their gradients, dense and sparse, and what they and their optimizers refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cce_minus.kernels import ArgumentTypeError, ArgumentValueError
from cce_minus.torch_impl.tables.item_table import ItemTable
from cce_minus.torch_impl.tables.optimizers import LazyAdam, RowWiseAdagrad
from cce_minus.torch_impl.tables.row_set import row_set
from torch import nn

from tests.tables.test_torch_optimizers import DEVICE, DIM, ITEMS, loss_of, steps_of, table_of, train


@pytest.mark.parametrize("optimizer", [torch.optim.SparseAdam, torch.optim.Adagrad, torch.optim.SGD])
def test_sparse_gradients_are_what_torchs_optimizers_take(optimizer: Any):
    table, embedding = table_of(sparse=True), nn.Embedding(ITEMS, DIM, sparse=True, device=DEVICE)
    with torch.no_grad():
        embedding.weight.copy_(table.weight)
    steps = steps_of(5)
    train(table, optimizer(table.parameters(), lr=0.1), steps)
    other = optimizer(embedding.parameters(), lr=0.1)
    for ids, factors in steps:
        other.zero_grad()
        (embedding(ids[ids >= 0]) * factors[ids >= 0]).sum().backward()
        other.step()
    torch.testing.assert_close(table.weight, embedding.weight, rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_with_those_of_the_model():
    table, layer = table_of(), nn.Linear(DIM, 1, bias=False, device=DEVICE)
    rows = row_set(torch.tensor([3, 5], device=DEVICE))
    (layer(table(rows)) * 100).sum().backward()
    leaves = [touched.values for touched in table.touched]
    norm = nn.utils.clip_grad_norm_([*layer.parameters(), *leaves], 1.0)
    assert norm > 1
    assert len(leaves) == 1
    grads = [leaves[0].grad, layer.weight.grad]
    assert sum(float(grad.square().sum()) for grad in grads if grad is not None) == pytest.approx(1.0, rel=1e-4)


def test_what_has_no_gradient_leaves_nothing():
    table = table_of()
    with torch.no_grad():
        table(row_set(torch.tensor([1], device=DEVICE)))
    table(row_set(torch.tensor([1], device=DEVICE)))
    optimizer = LazyAdam(table)
    before = table.weight.detach().clone()
    optimizer.step()
    assert table.touched == []
    assert torch.equal(table.weight, before)
    loss_of(table, *steps_of(1)[0]).backward()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(table.weight, before)


def test_a_gradient_of_the_whole_table_is_refused():
    table = table_of()
    optimizer = RowWiseAdagrad(table)
    table.weight.sum().backward()
    with pytest.raises(ArgumentValueError, match=r"table\.weight: expected"):
        optimizer.step()
    optimizer.zero_grad()
    optimizer.step()


def test_no_gradient_outlives_a_step():
    table = table_of()
    optimizer = RowWiseAdagrad(table, lr=0.1)
    loss = loss_of(table, *steps_of(1)[0])
    loss.backward(retain_graph=True)
    once = table.touched[0].values.grad
    assert once is not None
    once = once.clone()
    optimizer.zero_grad()
    loss.backward()
    again = table.touched[0].values.grad
    assert again is not None
    assert torch.equal(again, once)


def test_rows_that_only_fill_have_no_sparse_gradient():
    table = table_of(sparse=True)
    table(row_set(torch.tensor([1, 1, 1, 2], device=DEVICE))).sum().backward()
    assert table.weight.grad is not None
    grad = table.weight.grad.to_dense()
    assert grad.sum(1).nonzero().ravel().tolist() == [1, 2]
    assert torch.equal(grad[2], torch.ones(DIM, device=DEVICE))


def test_an_embedding_shares_its_parameter_both_ways():
    embedding = nn.Embedding(ITEMS, DIM, device=DEVICE)
    table = ItemTable.from_embedding(embedding)
    train(table, RowWiseAdagrad(table, lr=0.1), steps_of(1))
    assert table.weight is embedding.weight
    assert table.to_embedding().weight is embedding.weight
    assert torch.equal(copy.deepcopy(table).weight, table.weight)
    own: list[dict[str, Any]] = [{"padding_idx": 0}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}]
    for options in own:
        with pytest.raises(ArgumentValueError, match="embedding: expected"):
            ItemTable.from_embedding(nn.Embedding(ITEMS, DIM, **options))


def test_malformed_arguments_are_named():
    table = table_of()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"lr": -1.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"impl": "fast"}, "impl"),
    ]
    for options, argument in wrong:
        with pytest.raises(ArgumentValueError, match=f"{argument}: expected"):
            RowWiseAdagrad(table, **options)
    with pytest.raises(ArgumentValueError, match="betas: expected"):
        LazyAdam(table, betas=(1.0, 0.9))
    with pytest.raises(ArgumentTypeError, match="tables: expected ItemTables, got one that is sparse"):
        RowWiseAdagrad(table_of(sparse=True))
    with pytest.raises(ArgumentTypeError, match="tables: expected ItemTables, got Parameter"):
        RowWiseAdagrad(table.parameters())  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="tables: expected tables of different weights, got a weight twice"):
        RowWiseAdagrad([table, table])
    with pytest.raises(ArgumentValueError, match=r"tables: expected groups of params, lr, .*, got impl, seed"):
        RowWiseAdagrad([{"params": table, "seed": 5, "impl": "triton"}])
    with pytest.raises(ArgumentValueError, match="lr: expected"):
        RowWiseAdagrad([{"params": table, "lr": -1.0}])
    with pytest.raises(ArgumentTypeError, match=r"weight: expected .*, got torch.float16"):
        train(halved := table_of().half(), RowWiseAdagrad(halved), steps_of(1))
    with pytest.raises(ArgumentTypeError, match=r"dtype: expected torch.float32 or torch.bfloat16, got torch.float16"):
        table_of(dtype=torch.float16)
    with pytest.raises(ArgumentValueError, match="num_items, dim"):
        ItemTable(0, 4)
