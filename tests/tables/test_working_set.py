"""The working set: its rows, and what losses on them take."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus import jax_impl, torch_impl
from cce_minus.jax_impl.tables.working_set import working_set as jax_working_set
from cce_minus.kernels import (
    AllItems,
    ArgumentTypeError,
    ArgumentValueError,
    HardNegatives,
    History,
    InBatchNegatives,
    PopularityNegatives,
    UniformNegatives,
    negative_ids,
)
from cce_minus.torch_impl.tables.working_set import working_set as torch_working_set
from torch.library import opcheck

from tests.tables.working_sets import (
    DEVICE,
    FRAMEWORKS,
    IMPLS,
    LISTS,
    OF_TARGETS,
    inputs_of,
    kind,
    loss_of,
    made,
    make,
)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("rows", "num_items", "k", "ignored"), [(100, 5000, 70, 0.2), (40, 300, 5, 0.9), (1, 9, 1, 0)])
def test_rows_are_what_a_step_reads(framework: str, impl: str, rows: int, num_items: int, k: int, ignored: float):
    target, inputs = inputs_of(rows, num_items, ignored=ignored)
    negatives = UniformNegatives(k, 16)
    found = made(framework, negatives, target, num_items=num_items, seed=7, inputs=inputs, impl=impl)
    counted = int((target != -100).sum())
    drawn = negative_ids(negatives, num_rows=counted, num_items=num_items, seed=7)
    count = int(found["count"][0])
    expected_ids = np.unique(np.concatenate([drawn.ravel(), target[target >= 0], inputs[inputs >= 0]]))
    np.testing.assert_array_equal(found["ids"][:count], expected_ids)
    places = found["target"]
    np.testing.assert_array_equal(places < 0, target < 0)
    np.testing.assert_array_equal(found["ids"][places[places >= 0]], target[target >= 0])
    np.testing.assert_array_equal(np.where(inputs >= 0, found["ids"][found["inputs"].clip(0)], found["inputs"]), inputs)
    # every row has one position, where it is drawn or behind all draws
    there = found["drawn"][found["drawn"] >= 0]
    np.testing.assert_array_equal(np.sort(there), np.arange(len(found["ids"])))
    np.testing.assert_array_equal(found["drawn"][found["positions"][places >= 0]], places[places >= 0])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_has_no_working_set_is_refused(framework: str):
    target, _ = inputs_of(64, 100)
    for negatives, error, message in (
        (UniformNegatives(40, 16), ArgumentValueError, "negatives: expected at most 50 draws, half of num_items"),
        (UniformNegatives(100, 16), ArgumentValueError, "negatives: expected at most 50 draws"),
        (UniformNegatives(1, 1), ArgumentValueError, "negatives: expected at most 50 draws"),
        (AllItems(), ArgumentTypeError, "negatives: expected a sampler of part of the catalog"),
        (PopularityNegatives([1] * 100, 51), ArgumentValueError, "at most 50 draws.* got 1 groups of 51"),
        (HardNegatives(26, 3, 32), ArgumentValueError, "at most 50 draws.* got 2 groups of 26"),
        (3, ArgumentTypeError, "negatives: expected a sampler, got int"),
        (target, ArgumentTypeError, "negatives: expected a sampler, got ndarray"),
    ):
        with pytest.raises(error, match=message):
            made(framework, negatives, target, num_items=100, seed=1)
    with pytest.raises(ArgumentValueError, match=r"rows that share draws \(group_size of 16 or more\)"):
        made(framework, UniformNegatives(1, 1), target, num_items=1000, seed=1)
    for negatives, log_q, error, message in (
        (UniformNegatives(1, 16), np.zeros(100, np.float32), ArgumentTypeError, "None but for in-batch negatives"),
        (InBatchNegatives(16), np.zeros(99, np.float32), ArgumentValueError, "log_q: expected shape .100,."),
        (InBatchNegatives(16), np.zeros(100, np.int32), ArgumentTypeError, "log_q: expected dtype float32"),
    ):
        with pytest.raises(error, match=message):
            made(framework, negatives, target, num_items=100, seed=1, log_q=log_q)
    if DEVICE == "cpu":
        for name, arrays in {"target": (target + 90, None), "inputs": (target, target + 90)}.items():
            with pytest.raises(ArgumentValueError, match=f"{name}: expected .* item in .0, 100."):
                made(framework, UniformNegatives(1, 16), arrays[0], inputs=arrays[1], num_items=100, seed=1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_loss_takes_what_belongs_to_its_working_set(framework: str):
    target, _ = inputs_of(32, 1000)
    given = make(framework, UniformNegatives(4, 16), target, num_items=1000, seed=1)
    assert np.isfinite(float(loss_of(framework, given)))
    for keywords, error, message in (
        ({"table": 1000}, ArgumentValueError, "linear_weight: expected the 40 rows of the working set, 1000 items"),
        ({"ignore_index": -1}, ArgumentValueError, "ignore_index: expected -100, the working set's, got -1"),
        ({"seed": 1}, ArgumentTypeError, "seed: expected None beside a working set"),
    ):
        with pytest.raises(error, match=message):
            loss_of(framework, given, **keywords)


def test_one_working_set_in_jitted_steps_is_traced_once():
    traced = []

    @jax.jit
    def step(hidden: jax.Array, table: jax.Array, target: jax.Array, seed: jax.Array) -> Any:
        traced.append(1)
        given = jax_working_set(UniformNegatives(4, 16), target, num_items=len(table), seed=seed)

        def loss(rows: jax.Array, hidden: jax.Array) -> jax.Array:
            return jax_impl.sampled_linear_cross_entropy(hidden, rows, given.target, given)

        return jax.value_and_grad(loss, (0, 1))(table[given.ids], hidden)

    target, _ = inputs_of(32, 1000)
    for seed in range(3):
        value, _ = step(jnp.ones((32, 8)), jnp.ones((1000, 8)), jnp.asarray(target), jnp.uint32([0, seed]))
        assert np.isfinite(value)
    assert len(traced) == 1


@pytest.mark.parametrize(
    "negatives", [UniformNegatives(4, 16), *LISTS[2:], *OF_TARGETS[1:], HardNegatives(8, 3, 16)], ids=kind
)
def test_a_compiled_step_of_pytorch_is_one_graph(negatives: Any):
    log_q = torch.zeros(4000) if negatives.in_batch else None

    history = History(torch.arange(32) % 2, torch.tensor([0, 1, 3]), torch.tensor([2000, 7, 50]))

    def step(hidden: torch.Tensor, table: torch.Tensor, target: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        given = torch_working_set(negatives, target, num_items=len(table), seed=seed, log_q=log_q, history=history)
        rows = table[given.ids.long()]
        return torch_impl.sampled_linear_cross_entropy(hidden, rows, given.target, given)

    target, _ = inputs_of(32, 4000)
    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        hidden, table = (torch.randn(rows, 8, requires_grad=True) for rows in (32, 4000))
        loss = run(hidden, table, torch.from_numpy(target), torch.tensor([5]))
        loss.backward()
        results.append((loss.detach(), hidden.grad, table.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=0, atol=0)


@pytest.mark.parametrize("negatives", [UniformNegatives(4, 16), *LISTS], ids=kind)
def test_the_draw_is_an_operator(negatives: Any):
    target, _ = inputs_of(32, 4000)
    operands = torch.from_numpy(target), torch.tensor([1, 2], dtype=torch.int32), negatives.text
    opcheck(torch.ops.cce_minus.draw_groups.default, (*operands, 4000, -100, True))
    if negatives in LISTS:
        ids = torch.tensor([3, 7], dtype=torch.int32)
        opcheck(torch.ops.cce_minus.row_log_weights.default, (ids, negatives.text, 4000))


@pytest.mark.parametrize("negatives", [UniformNegatives(4, 16), LISTS[0], InBatchNegatives(None)], ids=kind)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_working_set_is_of_one_call(framework: str, negatives: Any):
    target, _ = inputs_of(32, 4000)
    given = make(framework, negatives, target, num_items=4000, seed=1)
    ones = partial(torch.ones, device=DEVICE)
    array, vmap = (ones, torch.func.vmap) if framework == "torch" else (jnp.ones, jax.vmap)

    def of(hidden: Any) -> Any:
        module: Any = torch_impl if framework == "torch" else jax_impl
        table = array((len(given.ids), 8))
        return module.sampled_linear_cross_entropy(hidden, table, given.target, given, logq_correction=False)

    with pytest.raises(ArgumentValueError, match="negatives: expected a sampler or ids under vmap"):
        vmap(of)(array((2, 32, 8)))
