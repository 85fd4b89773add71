"""One random call: a pure function of a seed and a number, run and compared with the oracle."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from tests.fuzz.data import draw, largest_logit
from tests.fuzz.signatures import Signature, signature, with_rows
from tests.inputs import Case
from tests.loss import run_scalable, scalable
from tests.loss.expected import Expected, assert_right, expect
from tests.loss.run_jax import run_jax
from tests.loss.run_torch import run_torch
from tests.loss.samplers import UnclearChoice
from tests.tolerance import Logits

ATTEMPTS = 20  # to draw data whose choice of items, if there is one, does not hang on rounding


@dataclass(frozen=True)
class Plan:
    """What a number stands for."""

    seed: int
    signatures: int
    size: str  # of signatures.SIZES
    framework: str
    row_counts: int = 1  # of each signature

    def signature_of(self, number: int) -> Signature:
        """Calls of a signature follow each other, so that what compiles does so once."""
        found = signature(self.seed, number % self.signatures, self.size)
        rows = found.case.num_rows
        which = (number // self.signatures) % self.row_counts
        others = np.random.default_rng([self.seed, 3, found.number]).integers(1, rows + 1, self.row_counts)
        return found if which == 0 or found.kind == "sce" else with_rows(found, int(others[which]))


@dataclass(frozen=True)
class Outcome:
    number: int
    kind: str
    dtype: str
    impl: str
    share: float  # the largest error, by what is allowed
    failure: str | None
    about: str


def outcome(plan: Plan, number: int, impl: str, device: str) -> Outcome:
    """Run one call. A failure is whatever it raises."""
    found = plan.signature_of(number)
    about, share, failure = str(found), 0.0, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # logarithms of 0 in the oracle
            if found.kind == "sce":
                share = _scalable(plan, found, number, impl, device)
            else:
                want, traits, logits = _expected(plan, number)
                about += f"; {traits}"
                result = run_torch(want, impl, device) if plan.framework == "torch" else run_jax(want, impl)
                share = assert_right(result, want, logits)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return Outcome(number, found.kind, str(found.dtype).removeprefix("torch."), impl, share, failure, about)


@functools.lru_cache(maxsize=4)  # one call may be run with several implementations
def _expected(plan: Plan, number: int) -> tuple[Expected, str, Logits]:
    found = plan.signature_of(number)
    case = found.case
    assert isinstance(case, Case)
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([plan.seed, 2, number, attempt])
        data = draw(found, rng)
        words = found.how.seed_kind in ("int", "words")
        how = replace(found.how, seed=int(rng.integers(0, 2**64 if words else 2**31, dtype=np.uint64)))
        if plan.framework == "torch" and how.seed_kind == "one":
            how = replace(how, seed=int(rng.integers(0, 2**64, dtype=np.uint64)))
        negatives, given = found.negatives, data.given
        try:
            clean_ids = data.inputs.ids if negatives is None else negatives
            want = expect(case, data.inputs, found.dtype, clean_ids, given, how, must_be_clear=True)  # type: ignore
        except UnclearChoice:
            continue
        if negatives is None:
            want = replace(want, negatives=given.ids)
        if found.dtype == torch.float16 and _overflows(want):
            continue
        return want, data.traits, data.logits
    raise UnclearChoice(f"no usable data in {ATTEMPTS} attempts")


def _overflows(want: Expected) -> bool:
    """Whether a gradient is beyond float16."""
    gradients = (want.truth.dhidden, want.truth.dtable, want.truth.dbias)
    return any(np.nanmax(np.abs(gradient), initial=0) > 3e4 for gradient in gradients)


def _scalable(plan: Plan, found: Signature, number: int, impl: str, device: str) -> float:
    """Scalable cross-entropy on the buckets that float64 makes, or the function's own in half precision."""
    assert isinstance(found.case, scalable.Case)
    dtype = found.dtype if plan.framework == "torch" else torch.float32
    rng = np.random.default_rng([plan.seed, 2, number])
    ignored = int(rng.choice([0, found.case.num_rows // 3, found.case.num_rows - 1, found.case.num_rows]))
    rubbish = float(rng.choice([0.0, np.nan, np.inf]))
    for attempt in range(ATTEMPTS):
        name = f"fuzz-{plan.seed}-{number}-{attempt}"
        case = replace(found.case, name=name, ignored=ignored, rubbish=rubbish)
        try:
            chosen = scalable.choose(case) if dtype == torch.float32 else run_scalable.torch_choice(case, dtype, device)
        except UnclearChoice:
            continue
        try:
            truth, plain = scalable.formulas(case, chosen, dtype)
            if plan.framework == "torch":
                result = run_scalable.run_torch(case, impl, dtype, device)
            else:
                result = run_scalable.run_jax(case, impl, dtype)
            inputs = scalable.make_inputs(case, dtype)
            hidden = inputs.hidden[inputs.target != case.ignore_index]
            logits = largest_logit(hidden, inputs.table, inputs.bias, case.logit_scale, case.softcap)
            return scalable.assert_right(result, truth, plain, dtype, logits)
        finally:
            scalable.make_inputs.cache_clear()
            scalable.choose.cache_clear()
    raise UnclearChoice(f"no usable data in {ATTEMPTS} attempts")
