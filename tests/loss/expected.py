"""What a case must give: the oracle's result, the plain implementation's, and how both compare with a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from cce_minus.kernels.negatives.samplers import Sampler

from tests.inputs import Case, Inputs, make_inputs
from tests.inputs import options as array_options
from tests.loss.samplers import SEED, negatives_of, oracle_negatives
from tests.oracle import OracleResult, oracle, reduce_oracle, upstream
from tests.plain import plain
from tests.tolerance import FLOOR, Logits, assert_close, assert_result_close, product_size

__all__ = [
    "PLAINLY", "SEED", "Expected", "How", "Result", "assert_right", "expect", "expected", "negatives_of", "options",
    "softmax_options",
]  # fmt: skip


CHOSEN_FROM = 64.0
"""Products of this size are those of cases with extreme logits, which are chosen so that rounding does not matter."""


@dataclass(frozen=True)
class Result:
    """A run's loss (reduced), lse and gradients, as NumPy arrays; None of what the call has no gradient of."""

    loss: np.ndarray
    lse: np.ndarray | None
    dhidden: np.ndarray | None
    dtable: np.ndarray | None
    dbias: np.ndarray | None
    dscale: float | None
    dweight: np.ndarray | None


@dataclass(frozen=True)
class How:
    """Ways to call a loss that leave its results as they are."""

    seed: int = SEED
    seed_kind: Literal["int", "one", "words", "key"] = "words"  # an array of one integer, of two words, JAX's key
    scale: Literal["array", "number"] = "array"
    wide_table: bool = False  # the table in float32 beside hidden states in half precision
    wide_bias: bool = False
    frozen: tuple[str, ...] = ()  # of hidden, table, bias, scale and weight: no gradient is asked for
    leading: tuple[int, ...] | None = None  # rows as (.., N / product), instead of (N,)
    full: bool = False  # every item through linear_cross_entropy
    short_ints: bool = False  # targets, ids and users as int32
    working_set: bool = False  # on the rows of the table that the call touches


PLAINLY = How()


@dataclass(frozen=True)
class Expected:
    case: Case
    inputs: Inputs  # rounded to the dtype
    ids: np.ndarray | None  # (N, K) as the oracle takes them
    truth: OracleResult
    yardstick: OracleResult
    dtype: torch.dtype
    negatives: Sampler | np.ndarray  # as the loss takes them
    given: Inputs  # what the loss is called with: the inputs, and anything in ignored rows
    how: How = PLAINLY


def options(case: Case) -> dict[str, Any]:
    """The public losses' keywords that are no arrays."""
    return {
        "ignore_index": case.ignore_index,
        "reduction": case.reduction,
        "softcap": case.softcap,
        "remove_accidental_hits": case.remove_accidental_hits,
    }


def softmax_options(case: Case) -> dict[str, Any]:
    """The same of the softmax losses alone."""
    return {"return_lse": True, "logq_correction": case.logq_correction}


@functools.cache
def expected(case: Case, dtype: torch.dtype = torch.float32) -> Expected:
    """The truth and the yardstick of a case, on inputs rounded to ``dtype``."""
    inputs = make_inputs(case, dtype=dtype)
    return expect(case, inputs, dtype, negatives_of(case, inputs))


def expect(
    case: Case,
    inputs: Inputs,
    dtype: torch.dtype,
    negatives: Sampler | np.ndarray,
    given: Inputs | None = None,
    how: How = PLAINLY,
    must_be_clear: bool = False,
) -> Expected:
    """The same on any inputs; the loss is called with ``given``, if not with them."""
    ids, of_draws = oracle_negatives(case, inputs, negatives, how.seed, must_be_clear)
    keywords = array_options(case, inputs) | of_draws
    keywords["grad_loss"], _ = _upstream(case, inputs, np.zeros(case.num_rows))
    truth = oracle(inputs.hidden, inputs.table, inputs.target, ids, **keywords)
    yardstick = plain(inputs.hidden, inputs.table, inputs.target, ids, dtype=dtype, **keywords)
    return Expected(case, inputs, ids, truth, yardstick, dtype, negatives, given or inputs, how)


def _upstream(case: Case, inputs: Inputs, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of the reduced loss: with respect to each row's, whatever ``loss`` is, and to the weights."""
    output = inputs.grad_loss if case.reduction == "none" else 1.0
    return upstream(loss, inputs.target, inputs.sample_weight, case.reduction, case.ignore_index, grad_output=output)


def assert_right(result: Result, want: Expected, logits: Logits | None = None) -> float:
    """Every part of a run within tolerance of the oracle; the largest share of what is allowed that an error takes.

    Of random inputs the plain error is far too small in some, by luck, which differs between processors. With
    ``logits``, how large they are, it counts as what one rounding of them, and one of the result, make of it; without,
    that of float32 gradients as what one rounding of the dot products does.
    """
    case, inputs, dtype = want.case, want.inputs, want.dtype
    absent = {f"d{name}" for name in want.how.frozen}
    absent |= {"dscale"} if want.how.scale == "number" else set()
    absent |= {"dbias"} if inputs.bias is None else set()

    def least(rounded_to: torch.dtype, size: float = 1.0) -> float:
        return 0.0 if logits is None else max(FLOOR[rounded_to], 2.0**-23 * logits.scores / max(size, 1e-30))

    shares = [_assert_loss(result, want, least)]
    for name in ("lse", "dhidden", "dtable", "dbias", "dscale"):
        value = getattr(result, name)
        if name in absent:
            assert value is None, f"{name}: nobody asked for it"
            continue
        luck = 0.0
        if logits is None and dtype == torch.float32 and name in ("dhidden", "dtable"):
            size = product_size(inputs.hidden, inputs.table, case.logit_scale)
            luck = 2.0**-23 * size if size < CHOSEN_FROM else 0.0
        elif logits is not None:
            luck = FLOOR[torch.float32] if name == "lse" else max(FLOOR[dtype], 2.0**-23 * sum(logits))
        shares.append(assert_result_close(name, value, want.truth, want.yardstick, dtype, least=luck))
    if inputs.sample_weight is not None and "dweight" not in absent:
        truth, yardstick = (_upstream(case, inputs, r.loss)[1] for r in (want.truth, want.yardstick))
        size = float(np.abs(want.truth.loss[np.isfinite(want.truth.loss)]).max(initial=0))
        shares.append(
            assert_close(
                "dweight", result.dweight, truth, yardstick, torch.float32, terms=_weight_terms(want),
                least=least(torch.float32, size),
            )
        )  # fmt: skip
    return max(shares)


def _assert_loss(result: Result, want: Expected, least: Callable[[torch.dtype, float], float]) -> float:
    """The reduced loss, of which the plain errors of rows add up: in a sum of a few they may cancel."""
    case, inputs, rows = want.case, want.inputs, want.truth.loss

    def reduced(loss: np.ndarray) -> np.ndarray:
        return reduce_oracle(loss, inputs.target, inputs.sample_weight, case.reduction, case.ignore_index)

    truth, size = reduced(rows), np.abs(reduced(np.abs(rows))).max(initial=0)
    ones = np.abs(reduced(np.ones_like(rows))).max(initial=0)  # what a row's error of 1 would be at most
    yardstick = reduced(want.yardstick.loss)
    if case.reduction != "none":
        yardstick = truth + reduced(np.abs(want.yardstick.loss - rows))
    return assert_close(
        "loss",
        result.loss,
        truth,
        yardstick,
        torch.float32,
        least=least(torch.float32, size / (ones or 1.0) / 2),  # a difference of two logits
    )


def _weight_terms(want: Expected) -> np.ndarray | float:
    """Of the gradients of weights, which of a mean are differences of losses: these may be all but equal."""
    case, inputs, loss = want.case, want.inputs, want.truth.loss
    counted = inputs.target != case.ignore_index
    mass = 0.0 if inputs.sample_weight is None else inputs.sample_weight[counted].sum()
    if case.reduction != "mean" or not mass:
        return 0.0
    mean = reduce_oracle(loss, inputs.target, inputs.sample_weight, case.reduction, case.ignore_index)
    return np.where(counted, np.abs(loss) + np.abs(mean), 0.0) / mass
