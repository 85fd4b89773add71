"""What a case must give: the oracle's result, the plain implementation's, and how both compare with a run."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tests.inputs import Case, Inputs, make_inputs
from tests.inputs import options as array_options
from tests.loss.samplers import SEED, negatives_of, oracle_negatives
from tests.oracle import OracleResult, oracle, reduce_oracle, upstream
from tests.plain import plain
from tests.tolerance import assert_close, assert_result_close

__all__ = ["SEED", "Expected", "Result", "assert_right", "expected", "negatives_of", "options", "softmax_options"]


@dataclass(frozen=True)
class Result:
    """A run's loss (reduced), lse and gradients, as NumPy arrays; dweight None without sample weights."""

    loss: np.ndarray
    lse: np.ndarray
    dhidden: np.ndarray
    dtable: np.ndarray
    dbias: np.ndarray | None
    dscale: float
    dweight: np.ndarray | None


@dataclass(frozen=True)
class Expected:
    case: Case
    inputs: Inputs  # rounded to the dtype
    ids: np.ndarray | None  # (N, K) as the oracle takes them
    truth: OracleResult
    yardstick: OracleResult
    dtype: torch.dtype


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
    ids, of_draws = oracle_negatives(case, inputs)
    keywords = array_options(case, inputs) | of_draws
    rows = oracle(inputs.hidden, inputs.table, inputs.target, ids, **keywords)
    u, _ = upstream(
        rows.loss,
        inputs.target,
        inputs.sample_weight,
        case.reduction,
        case.ignore_index,
        grad_output=_grad_output(case, inputs),
    )
    keywords["grad_loss"] = u
    truth = oracle(inputs.hidden, inputs.table, inputs.target, ids, **keywords)
    yardstick = plain(inputs.hidden, inputs.table, inputs.target, ids, dtype=dtype, **keywords)
    return Expected(case, inputs, ids, truth, yardstick, dtype)


def _grad_output(case: Case, inputs: Inputs) -> np.ndarray | float:
    return inputs.grad_loss if case.reduction == "none" else 1.0


def assert_right(result: Result, want: Expected) -> None:
    """Every part of a run within tolerance of the oracle."""
    case, inputs = want.case, want.inputs
    reduced, reduced_plain = (
        reduce_oracle(r.loss, inputs.target, inputs.sample_weight, case.reduction, case.ignore_index)
        for r in (want.truth, want.yardstick)
    )
    assert_close("loss", result.loss, reduced, reduced_plain, torch.float32)
    for name in ("lse", "dhidden", "dtable", "dscale"):
        assert_result_close(name, getattr(result, name), want.truth, want.yardstick, want.dtype)
    if inputs.bias is not None:
        assert_result_close("dbias", result.dbias, want.truth, want.yardstick, want.dtype)
    if inputs.sample_weight is not None:
        truth, yardstick = (
            upstream(
                r.loss, inputs.target, inputs.sample_weight, case.reduction, case.ignore_index,
                grad_output=_grad_output(case, inputs),
            )[1]
            for r in (want.truth, want.yardstick)
        )  # fmt: skip
        assert_close("dweight", result.dweight, truth, yardstick, torch.float32)
