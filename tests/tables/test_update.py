"""Updates of the rows that a step touches, against float64: every rule, framework and implementation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cce_minus.kernels.plan.row_update import RULES, RowRule

from tests.tables.oracle import Table, updated
from tests.tables.run import update

WAYS = list(itertools.product(("torch", "jax"), ("reference", "triton")))
EPS32 = 2.0**-23


def table_of(rule: RowRule, items: int, dim: int, rng: np.random.Generator) -> Table:
    """As after some updates: moments of the gradients' size, second ones not negative; exact in fp32."""
    weight, first = (rng.standard_normal((items, dim)).astype(np.float32) for _ in range(2))
    second = rng.random(rule.second_shape(items, dim)).astype(np.float32)
    return Table(*(array.astype(np.float64) for array in (weight, 0.1 * first.astype(np.float32), 0.01 * second)))


def rule_of(name: str, weight_decay: float = 0.0) -> RowRule:
    beta1, beta2 = (0.0, 0.0) if name == "rowwise_adagrad" else (0.9, 0.999)
    return RowRule(name, beta1, beta2, 1e-8, weight_decay)  # type: ignore[arg-type]


@pytest.mark.parametrize(("framework", "impl"), WAYS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("dim", "rows", "count", "step", "weight_decay"),
    [(64, 40, 33, 1, 0.0), (50, 7, 7, 3, 0.1), (1, 5, 1, 1000, 0.0), (320, 3, 2, 100_000, 0.01), (16, 4, 0, 2, 0.1)],
    ids=["usual", "ragged", "one column", "wide and late", "no row"],
)
def test_touched_rows_move_as_in_float64(
    framework: str, impl: str, name: str, dim: int, rows: int, count: int, step: int, weight_decay: float
):
    rng, rule = np.random.default_rng(dim), rule_of(name, weight_decay)
    table = Table(*(array.astype(np.float32).astype(np.float64) for array in table_of(rule, 60, dim, rng)))
    distinct = np.sort(rng.permutation(60)[: max(count, 1)])
    ids = np.append(distinct, np.full(rows - len(distinct), distinct[-1]))
    grad = rng.standard_normal((rows, dim)).astype(np.float32)
    rate = float(np.float32(1e-2))
    got = update(framework, impl, table._asdict(), rule, ids, count, grad, rate, step)
    expected = updated(table, rule, ids[:count], grad[:count].astype(np.float64), rate, step)._asdict()
    untouched = np.setdiff1d(np.arange(60), ids[:count])
    for part, array in got.items():
        want = expected[part]
        np.testing.assert_array_equal(array[untouched], table._asdict()[part][untouched].astype(np.float32))
        # a handful of roundings of each number, and of what is subtracted from it
        np.testing.assert_allclose(array, want, rtol=8 * EPS32, atol=8 * EPS32 * np.abs(want).max(), err_msg=part)


@pytest.mark.parametrize(("framework", "impl"), WAYS)
def test_gradients_behind_the_last_row_are_not_read(framework: str, impl: str):
    rng, rule = np.random.default_rng(0), rule_of("lazy_adam")
    table = table_of(rule, 20, 16, rng)
    ids, grad = np.array([3, 9, 9, 9]), rng.standard_normal((4, 16)).astype(np.float32)
    expected = update(framework, impl, table._asdict(), rule, ids, 2, grad, 0.1, 1)
    grad[2:] = np.nan
    got = update(framework, impl, table._asdict(), rule, ids, 2, grad, 0.1, 1)
    for part, array in got.items():
        np.testing.assert_array_equal(array, expected[part])


@pytest.mark.parametrize("name", RULES)
def test_frameworks_run_the_same_kernel(name: str):
    rng, rule = np.random.default_rng(1), rule_of(name, 0.01)
    table = table_of(rule, 50, 48, rng)
    ids, grad = np.sort(rng.permutation(50)[:20]), rng.standard_normal((20, 48)).astype(np.float32)
    for dtype, seed in (("float32", None), ("bfloat16", None), ("bfloat16", 5)):
        one, other = (
            update(framework, "triton", table._asdict(), rule, ids, 20, grad, 0.01, 7, seed, dtype=dtype)
            for framework in ("torch", "jax")
        )
        for part, array in one.items():
            np.testing.assert_array_equal(array, other[part], err_msg=f"{part} of {dtype}")
