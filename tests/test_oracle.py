"""The oracle against hand-worked numbers, finite differences, SciPy; the tolerance against planted errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from tests.cases import CASES, cases
from tests.inputs import SAMPLED, Case, Inputs, Int64, make_inputs, options, spread_over_rows
from tests.oracle import OracleResult, oracle, reduce_oracle, upstream
from tests.plain import plain
from tests.tolerance import assert_close, assert_result_close

GRADIENTS = ("dhidden", "dtable", "dbias", "dscale")
RESULTS = ("loss", "lse", *GRADIENTS)


def named_case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def some_ids(case: Case, inputs: Inputs) -> Int64 | None:
    """Explicit ids as they are; for a sampler any draw without replacement will do here."""
    if case.mode not in SAMPLED:
        return inputs.ids
    rng = np.random.default_rng(case.num_items)
    rows = np.tile(np.arange(case.num_items), ((inputs.target != case.ignore_index).sum(), 1))
    drawn = rng.permuted(rows, axis=1)[:, : case.num_negatives]
    return spread_over_rows(drawn, inputs.target, case.ignore_index)


# By hand: scores 1 (target) and 3 (item 2), V - 1 = 2, one draw: z = (1, 3 + log 2), and
# loss = log(1 + 2 e^2), p = 2 e^2 / (1 + 2 e^2) for the negative.
HAND_E = np.array([[1.0, 2.0]])
HAND_C = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
HAND_LOSS, HAND_P = 2.7586235896, 0.9366210617


def hand(ids: list[int], **kwargs: Any) -> OracleResult:
    return oracle(HAND_E, HAND_C, np.array([0]), np.array([ids]), **kwargs)


def test_hand_case_loss_gradient():
    got = hand([2], grad_loss=[1.0])
    p = HAND_P
    np.testing.assert_allclose(got.loss, [HAND_LOSS], atol=1e-9)
    np.testing.assert_allclose(got.lse, [HAND_LOSS + 1], atol=1e-9)
    np.testing.assert_allclose(got.dhidden, [[0, p]], atol=1e-9)  # p c_2 - p c_0
    np.testing.assert_allclose(got.dtable, [[-p, -2 * p], [0, 0], [p, 2 * p]], atol=1e-9)
    np.testing.assert_allclose(got.dbias, [-p, 0, p], atol=1e-9)
    np.testing.assert_allclose(got.dscale, 2 * p, atol=1e-9)  # p (3 - 1)
    assert got.kept.tolist() == [1]


def test_hand_case_lse_gradient():
    got = hand([2], grad_lse=[1.0])
    np.testing.assert_allclose(got.dhidden, [[1, HAND_P]], atol=1e-9)
    np.testing.assert_allclose(got.dbias, [1 - HAND_P, 0, HAND_P], atol=1e-9)


def test_hand_case_hits_slots_and_repeats():
    # Two draws of item 2 have log(2 / 2) each: together what one draw has with log 2.
    repeated = hand([2, -1, 2, 0])
    np.testing.assert_allclose(repeated.loss, [HAND_LOSS], atol=1e-9)
    assert repeated.kept.tolist() == [2]
    # The hit kept: z = (1; 3, 1) with log(2 / 2), loss = log(1 + e^2 + 1).
    np.testing.assert_allclose(hand([2, 0], remove_accidental_hits=False).loss, [2.2395447662], atol=1e-9)


def test_hand_case_scale_bias_softcap():
    # x = 2 * 3 - 2 for the negative, 2 * 1 + 2 for the target: equal under any cap, loss = log(1 + 2).
    got = hand([2], logit_scale=2.0, bias=np.array([2.0, 0.0, -2.0]), softcap=4.0, grad_loss=[1.0])
    slope = 0.4199743416  # 1 - tanh(1)^2
    np.testing.assert_allclose(got.loss, [1.0986122887], atol=1e-9)
    np.testing.assert_allclose(got.lse, [1.0986122887 + 4 * 0.7615941560], atol=1e-9)
    np.testing.assert_allclose(got.dbias, [-slope * 2 / 3, 0, slope * 2 / 3], atol=1e-9)
    np.testing.assert_allclose(got.dhidden, [[0, 2 * slope * 2 / 3]], atol=1e-9)


SMALL_IDS = np.array([[1, 4, 0], [2, 2, -1], [5, 5, 5], [0, 3, 1], [-1, -1, -1]])
SMALL_TARGET = np.array([4, 0, 5, -100, 2])  # a hit, a repeat with a slot, m = 0 by hits, ignored, m = 0 by slots
EVERY_OPTION = {"softcap": 1.5, "logit_scale": 1.3, "bias": np.array([0.3, -1.0, 0.2, 0.8, -0.1, 0.5])}


@pytest.mark.parametrize("ids", [SMALL_IDS, SMALL_IDS[0], None], ids=["row_ids", "shared_ids", "all"])
@pytest.mark.parametrize("upstreams", ["grad_loss", "grad_lse", "both"])
@pytest.mark.parametrize(
    "extra",
    [{}, {"remove_accidental_hits": False}, EVERY_OPTION, EVERY_OPTION | {"remove_accidental_hits": False}],
    ids=["plain", "hits_kept", "options", "options_hits_kept"],
)
def test_gradients_match_finite_differences(ids: Int64 | None, upstreams: str, extra: dict[str, Any]):
    rng = np.random.default_rng(0)
    at: dict[str, Any] = {"hidden": rng.standard_normal((5, 3)), "table": rng.standard_normal((6, 3))}
    at |= {"bias": np.zeros(6), "logit_scale": 1.0} | extra
    u, v = rng.standard_normal((2, 5)) * [[upstreams != "grad_lse"], [upstreams != "grad_loss"]]

    def objective(values: dict[str, Any]) -> float:
        result = oracle(target=SMALL_TARGET, ids=ids, **values)
        return float(u @ result.loss + v @ result.lse)

    got = oracle(target=SMALL_TARGET, ids=ids, grad_loss=u, grad_lse=v, **at)
    step = 1e-5
    for gradient, name in zip(GRADIENTS, ("hidden", "table", "bias", "logit_scale"), strict=True):
        value = np.asarray(at[name])
        numeric = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            shift = np.zeros(value.shape)
            shift[index] = step
            up, down = (objective(at | {name: value + sign * shift}) for sign in (1, -1))
            numeric[index] = (up - down) / (2 * step)
        np.testing.assert_allclose(getattr(got, gradient), numeric, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_oracle_agrees_with_float64_autograd(case: Case):
    truth, eager, *_ = measured(case, torch.float64)
    for name in RESULTS:
        expected = np.asarray(getattr(eager, name))
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        if name == "dscale" and scale:
            assert truth.terms
            scale = truth.terms.dscale
        got = getattr(truth, name)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * scale + 1e-14, err_msg=name)
    np.testing.assert_array_equal(truth.kept, eager.kept)


def test_every_item_is_full_softmax_cross_entropy():
    inputs = make_inputs(cases("all")[0])
    logits = inputs.hidden.astype(np.float64) @ inputs.table.T.astype(np.float64)
    full: np.ndarray = np.asarray(logsumexp(logits, axis=1))
    rows = np.arange(len(inputs.target))
    every_id = np.tile(np.arange(len(inputs.table)), (len(rows), 1))
    for ids in (None, every_id):
        got = oracle(inputs.hidden, inputs.table, inputs.target, ids, grad_loss=np.ones(len(rows)))
        np.testing.assert_allclose(got.lse, full, rtol=1e-13)
        np.testing.assert_allclose(got.loss, full - logits[rows, inputs.target], rtol=1e-12)
        coefficient = np.exp(logits - full[:, None])
        coefficient[rows, inputs.target] -= 1
        np.testing.assert_allclose(got.dtable, coefficient.T @ inputs.hidden, rtol=1e-9, atol=1e-12)


def test_invariances():
    case = named_case("row_ids-ragged")
    inputs = make_inputs(replace(case, has_bias=True))
    assert inputs.bias is not None
    assert inputs.ids is not None
    arrays, u, v = (inputs.hidden, inputs.table, inputs.target), inputs.grad_loss, inputs.grad_lse
    base = oracle(*arrays, inputs.ids, bias=inputs.bias, grad_loss=u, grad_lse=v)

    shifted = oracle(*arrays, inputs.ids, bias=inputs.bias.astype(np.float64) + 3)
    np.testing.assert_allclose(shifted.loss, base.loss, rtol=1e-12)
    np.testing.assert_allclose(shifted.lse, base.lse + 3, rtol=1e-12)

    permuted = np.random.default_rng(0).permuted(inputs.ids, axis=1)
    again = oracle(*arrays, permuted, bias=inputs.bias, grad_loss=u, grad_lse=v)
    for name in RESULTS:
        np.testing.assert_array_equal(getattr(again, name), getattr(base, name))

    # Probabilities sum to 1 in a row: a shift of all biases by x moves sum(u loss + v lse) by x sum(v).
    np.testing.assert_allclose(base.dbias.sum(), v.sum(dtype=np.float64), rtol=1e-12)
    only_loss = oracle(*arrays, inputs.ids, grad_loss=u)
    np.testing.assert_allclose(only_loss.dtable.sum(0), 0, atol=1e-12)


@pytest.mark.parametrize(("target", "ids"), [(3, [0, 1]), (-1, [0, 1]), (0, [2, 3]), (0, [-2, 2])])
def test_out_of_range_row_is_nan_and_alone(target: int, ids: list[int]):
    e = np.array([[1.0, 2.0], [0.5, -1.0]])
    got = oracle(e, HAND_C, np.array([target, 1]), np.array([ids, [1, -1]]), grad_loss=[1.0, 1.0])
    for name in ("loss", "lse", "dhidden"):
        rows = getattr(got, name)
        assert np.isnan(rows[0]).all()
        assert np.isfinite(rows[1]).all()
    named = [0, 1] if target else [0, 2]
    np.testing.assert_array_equal(np.isnan(got.dbias), np.isin(np.arange(3), named))


def test_reductions_and_their_gradients():
    loss, weight, target = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 5.0]), np.array([0, 0, -100])
    args = (loss * [1, 1, 0], target, weight)
    assert reduce_oracle(*args, "mean") == 7 / 4
    assert reduce_oracle(*args, "sum") == 7
    assert reduce_oracle(*args, "none").tolist() == [1, 6, 0]
    u, dweight = upstream(*args, "mean", grad_output=2.0)
    assert u.tolist() == [0.5, 1.5, 0]
    assert dweight.tolist() == [2 * (1 - 1.75) / 4, 2 * (2 - 1.75) / 4, 0]
    u, dweight = upstream(*args, "none", grad_output=[1.0, -1.0, 1.0])
    assert u.tolist() == [1, -3, 0]
    assert dweight.tolist() == [1, -2, 0]
    empty = (np.zeros(2), np.full(2, -100), None, "mean")
    assert reduce_oracle(*empty) == 0
    assert not np.any(upstream(*empty))


@pytest.mark.parametrize("mode", ["independent", "grouped", "all", "shared_ids", "row_ids"])
def test_every_mode_meets_every_option(mode: Any):
    named = cases(mode)
    assert len({case.name for case in CASES}) == len(CASES)
    usual = Case("", "", mode, 1, 1)
    for option in ("has_bias", "softcap", "weighted", "logit_scale", "remove_accidental_hits", "ignored"):
        assert any(getattr(case, option) != getattr(usual, option) for case in named), option


@pytest.mark.parametrize("case", cases(), ids=str)
def test_inputs_are_what_the_case_says(case: Case):
    inputs, again = make_inputs(case), make_inputs(case)
    np.testing.assert_array_equal(inputs.hidden, again.hidden)
    if len(inputs.hidden) > 1:
        flags = inputs.hidden.flags, inputs.table.flags
        assert all(array.c_contiguous == case.contiguous for array in flags)
    logits = inputs.hidden @ inputs.table.T
    if case.logits == "extreme":
        assert 0.9e4 < np.abs(logits).max() < 1.1e4
    if case.logits == "confident":
        miss = -np.expm1(-oracle(inputs.hidden, inputs.table, inputs.target, None).loss)
        assert 1e-7 < np.median(miss) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_order_of_summing_passes(case: Case, dtype: torch.dtype):
    truth, yardstick, inputs, ids = measured(case, dtype)
    arrays = (inputs.hidden[:, ::-1].copy(), inputs.table[:, ::-1].copy(), inputs.target)
    turned = None if ids is None else ids[..., ::-1].copy()
    got = plain(*arrays, turned, dtype=dtype, **options(case, inputs))
    got = replace(got, dhidden=got.dhidden[:, ::-1], dtable=got.dtable[:, ::-1])
    for name in RESULTS:
        assert_result_close(name, getattr(got, name), truth, yardstick, dtype)


def measured(case: Case, dtype: torch.dtype) -> tuple[OracleResult, OracleResult, Inputs, Int64 | None]:
    inputs = make_inputs(case, dtype=dtype)
    ids, arrays = some_ids(case, inputs), (inputs.hidden, inputs.table, inputs.target)
    truth = oracle(*arrays, ids, **options(case, inputs))
    return truth, plain(*arrays, ids, dtype=dtype, **options(case, inputs)), inputs, ids


def swap_rows(x: np.ndarray) -> None:
    x[[3, 4]] = x[[4, 3]]


PLANTED: dict[str, Callable[[np.ndarray], Any]] = {
    "row_off_by_1%": lambda x: np.multiply(x[3], 1.01, out=x[3]),
    "row_off_by_3%": lambda x: np.multiply(x[3], 1.03, out=x[3]),
    "swapped_row": swap_rows,
    "nan": lambda x: x.__setitem__((3, 2), np.nan),
    "infinite": lambda x: x.__setitem__((3, 2), np.inf),
    "sign_flip": lambda x: np.negative(x[3], out=x[3]),
    "zero_row": lambda x: x.__setitem__(3, 0),
}


@pytest.mark.parametrize(
    ("error", "dtype"),  # 1% of one row is as much as bfloat16 may round
    [(error, torch.float32) for error in PLANTED] + [(error, torch.bfloat16) for error in list(PLANTED)[1:]],
    ids=str,
)
@pytest.mark.parametrize("name", ["grouped-ragged", "row_ids-ragged", "all-options"])
def test_planted_error_fails(name: str, error: str, dtype: torch.dtype):
    truth, yardstick, *_ = measured(named_case(name), dtype)
    for gradient in ("dtable", "dhidden"):
        got = getattr(yardstick, gradient).copy()
        assert_result_close(gradient, got, truth, yardstick, dtype)
        PLANTED[error](got)
        with pytest.raises(AssertionError, match=gradient):
            assert_result_close(gradient, got, truth, yardstick, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_missing_accidental_hit_fails(dtype: torch.dtype):
    case = named_case("grouped-ragged")
    truth, yardstick, inputs, ids = measured(case, dtype)
    settings: dict[str, Any] = options(case, inputs) | {"remove_accidental_hits": False}
    wrong = plain(inputs.hidden, inputs.table, inputs.target, ids, dtype=dtype, **settings)
    for name in RESULTS[:5]:
        with pytest.raises(AssertionError, match=name):
            assert_result_close(name, getattr(wrong, name), truth, yardstick, dtype)


def test_nan_passes_only_where_the_truth_is_nan():
    truth, zero = np.array([1.0, np.nan]), np.zeros(2)
    assert_close("x", truth, truth, truth, torch.float32)
    with pytest.raises(AssertionError, match="NaN"):
        assert_close("x", np.array([1.0, 2.0]), truth, truth, torch.float32)
    assert_close("x", np.array([1e-7, 0]), zero, zero, torch.float32)  # truth 0: the floor is absolute
    with pytest.raises(AssertionError, match="L2"):
        assert_close("x", np.array([1e-5, 0]), zero, zero, torch.float32)
