"""The working set: its rows, and losses on them against the oracle and bit for bit against the whole table's."""

from __future__ import annotations

from dataclasses import replace
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
    PopularityNegatives,
    UniformNegatives,
    negative_ids,
)
from cce_minus.torch_impl.tables.working_set import working_set as torch_working_set

from tests.cases import cases
from tests.inputs import Case
from tests.loss.expected import How, assert_right, expected
from tests.loss.run_jax import run_jax
from tests.loss.run_torch import run_torch

FRAMEWORKS = ("torch", "jax")
RUN = {"torch": run_torch, "jax": run_jax}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ("reference", pytest.param("triton", marks=pytest.mark.interpreter))
ON_ROWS = How(working_set=True)


def drawn_cases() -> tuple[Case, ...]:
    """The grouped cases of uniform draws, among enough items that a step draws at most half of them."""

    def draws(case: Case) -> int:
        return -(-case.num_rows // case.group_size) * case.num_negatives

    chosen = (case for case in cases() if case.mode == "grouped" and case.sampler == "uniform" and not case.has_history)
    return tuple(replace(case, num_items=max(case.num_items, 2 * draws(case) + 1)) for case in chosen)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", drawn_cases(), ids=str)
def test_losses_and_gradients(case: Case, framework: str, impl: str):
    want = replace(expected(case), how=ON_ROWS)
    got = RUN[framework](want, impl)
    assert_right(got, want)
    dense = RUN[framework](replace(want, how=How()), impl)
    np.testing.assert_array_equal(got.loss, dense.loss)
    np.testing.assert_array_equal(got.lse, dense.lse)


@pytest.mark.gpu
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", drawn_cases(), ids=str)
def test_losses_and_gradients_on_a_gpu(case: Case, dtype: torch.dtype, framework: str):
    want = replace(expected(case, dtype), how=ON_ROWS)
    operands: tuple[Any, ...] = (want, "triton", "cuda") if framework == "torch" else (want, "triton")
    got = RUN[framework](*operands)
    assert_right(got, want)
    dense = RUN[framework](replace(want, how=How()), *operands[1:])
    np.testing.assert_array_equal(got.loss, dense.loss)
    np.testing.assert_array_equal(got.lse, dense.lse)


def made(framework: str, negatives: Any, target: np.ndarray, **keywords: Any) -> dict[str, np.ndarray]:
    """The arrays of a working set, by name."""
    inputs = keywords.pop("inputs", None)
    if framework == "torch":
        tensors = [None if ids is None else torch.from_numpy(ids).to(DEVICE) for ids in (target, inputs)]
        found: Any = torch_working_set(negatives, tensors[0], inputs=tensors[1], **keywords)  # type: ignore[arg-type]
    else:
        found = jax_working_set(negatives, target, inputs=inputs, **keywords)
    arrays = {name: getattr(found, name) for name in ("ids", "count", "target", "inputs", "drawn", "positions")}
    return {
        name: array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
        for name, array in arrays.items()
        if array is not None
    }


def inputs_of(rows: int, num_items: int, *, ignored: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + num_items)
    target = np.where(rng.random(rows) < ignored, -100, rng.integers(0, num_items, rows)).astype(np.int32)
    return target, rng.integers(-1, num_items, (rows, 3)).astype(np.int32)


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


@pytest.mark.parametrize("impl", IMPLS)
def test_frameworks_agree(impl: str):
    target, inputs = inputs_of(60, 4000)
    each = [
        made(framework, UniformNegatives(70, 32), target, num_items=4000, seed=3, inputs=inputs, impl=impl)
        for framework in FRAMEWORKS
    ]
    for name, array in each[0].items():
        np.testing.assert_array_equal(array, each[1][name], err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_has_no_working_set_is_refused(framework: str):
    target, _ = inputs_of(64, 100)
    for negatives, error, message in (
        (UniformNegatives(40, 16), ArgumentValueError, "negatives: expected at most 50 draws, half of num_items"),
        (UniformNegatives(100, 16), ArgumentValueError, "negatives: expected at most 50 draws"),
        (UniformNegatives(1, 1), ArgumentValueError, "negatives: expected at most 50 draws"),
        (AllItems(), ArgumentTypeError, "negatives: expected UniformNegatives"),
        (PopularityNegatives([1] * 100, 3), ArgumentTypeError, "negatives: expected UniformNegatives"),
        (3, ArgumentTypeError, "negatives: expected a sampler, got int"),
    ):
        with pytest.raises(error, match=message):
            made(framework, negatives, target, num_items=100, seed=1)
    with pytest.raises(ArgumentValueError, match=r"rows that share draws \(group_size of 16 or more\)"):
        made(framework, UniformNegatives(1, 1), target, num_items=1000, seed=1)
    if DEVICE == "cpu":
        for name, arrays in {"target": (target + 90, None), "inputs": (target, target + 90)}.items():
            with pytest.raises(ArgumentValueError, match=f"{name}: expected .* item in .0, 100."):
                made(framework, UniformNegatives(1, 16), arrays[0], inputs=arrays[1], num_items=100, seed=1)


def loss_of(framework: str, given: Any, **keywords: Any) -> Any:
    module: Any = torch_impl if framework == "torch" else jax_impl
    array = torch.ones if framework == "torch" else jnp.ones
    shape = keywords.pop("shape", (len(given.target), 8))
    table = keywords.pop("table", len(given.ids))
    call = keywords.pop("call", module.sampled_linear_cross_entropy)
    return call(array(shape), array((table, 8)), keywords.pop("target", given.target), given, **keywords)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_loss_takes_what_belongs_to_its_working_set(framework: str):
    target, _ = inputs_of(32, 1000)
    make: Any = torch_working_set if framework == "torch" else jax_working_set
    given = make(UniformNegatives(4, 16), torch.from_numpy(target) if framework == "torch" else target,
                 num_items=1000, seed=1)  # fmt: skip
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


def test_a_compiled_step_of_pytorch_is_one_graph():
    def step(hidden: torch.Tensor, table: torch.Tensor, target: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        given = torch_working_set(UniformNegatives(4, 16), target, num_items=len(table), seed=seed)
        rows = table[given.ids.long()]
        return torch_impl.sampled_linear_cross_entropy(hidden, rows, given.target, given)

    target, _ = inputs_of(32, 1000)
    results = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        hidden, table = (torch.randn(rows, 8, requires_grad=True) for rows in (32, 1000))
        loss = run(hidden, table, torch.from_numpy(target), torch.tensor([5]))
        loss.backward()
        results.append((loss.detach(), hidden.grad, table.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=0, atol=0)


def test_the_draw_is_an_operator():
    target, _ = inputs_of(32, 1000)
    operands = torch.from_numpy(target), torch.tensor([1, 2], dtype=torch.int32), UniformNegatives(4, 16).text
    torch.library.opcheck(torch.ops.cce_minus.draw_groups.default, (*operands, 1000, -100, True))
