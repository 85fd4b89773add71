"""Checks of the loss's arguments that need only shapes and dtypes, shared by torch and JAX."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ..draws.draw import Correction, Draw
from ..errors import ArgumentTypeError, ArgumentValueError
from ..numbers import as_index, as_number, as_positive
from .base import Negatives

FLOATS = ("float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
REDUCTIONS = ("none", "mean", "sum")
IMPLS = ("auto", "triton", "reference")
MAX_ITEMS = (
    2**30 - 2
)  # positions of the item permutation are int32 with room for its padding, sort keys of two passes too
MAX_ROWS = 2**30


@dataclass(frozen=True)
class Spec:
    """What an array argument looks like; ``device`` None where the framework has not placed it yet."""

    shape: tuple[int, ...]
    dtype: str
    device: str | None = None


def _shape(argument: str, spec: Spec, expected: tuple[int, ...], meaning: str) -> None:
    if spec.shape != expected:
        raise ArgumentValueError(argument, f"shape {expected}, {meaning}", spec.shape)


def _dtype(argument: str, spec: Spec, allowed: tuple[str, ...]) -> None:
    if spec.dtype not in allowed:
        raise ArgumentTypeError(argument, f"dtype {' or '.join(allowed)}", spec.dtype)


def check_arrays(
    input: Spec, linear_weight: Spec, target: Spec, ids: Spec | None, linear_bias: Spec | None,
    sample_weight: Spec | None,
    log_q: Spec | None = None, history: tuple[Spec, ...] | None = None,
) -> None:  # fmt: skip
    """Shapes, dtypes and devices; raises ArgumentTypeError or ArgumentValueError naming the argument."""
    _dtype("input", input, FLOATS)
    _dtype("linear_weight", linear_weight, FLOATS)
    _dtype("target", target, INTEGERS)
    if not input.shape:
        raise ArgumentValueError("input", "shape (..., D)", input.shape)
    if len(linear_weight.shape) != 2:
        raise ArgumentValueError("linear_weight", "shape (V, D)", linear_weight.shape)
    rows, dim = input.shape[:-1], input.shape[-1]
    items, weight_dim = linear_weight.shape
    if dim != weight_dim:
        raise ArgumentValueError(
            "linear_weight", f"shape (V, {dim}) for input of shape {input.shape}", linear_weight.shape
        )
    if dim == 0 or not 1 <= items <= MAX_ITEMS:
        raise ArgumentValueError("linear_weight", f"1 to {MAX_ITEMS} items of width 1 or more", linear_weight.shape)
    if {input.dtype, linear_weight.dtype} == {"float16", "bfloat16"}:
        raise ArgumentTypeError(
            "linear_weight", f"dtype {input.dtype} or float32 beside {input.dtype} input", linear_weight.dtype
        )
    if math.prod(rows) > MAX_ROWS:
        raise ArgumentValueError("input", f"at most {MAX_ROWS} rows", math.prod(rows))
    _shape("target", target, rows, "that of input without its last axis")
    if ids is not None:
        _dtype("negatives", ids, INTEGERS)
        if not ids.shape or (len(ids.shape) != 1 and ids.shape[:-1] != rows):
            raise ArgumentValueError("negatives", f"shape (K,) or {(*rows, 'K')}", ids.shape)
        if ids.shape[-1] == 0:
            raise ArgumentValueError("negatives", "at least one id a row", ids.shape)
        if math.prod(ids.shape) >= 2**31:
            raise ArgumentValueError(
                "negatives", "fewer than 2^31 ids; a sampler has no such limit", math.prod(ids.shape)
            )
    if linear_bias is not None:
        _dtype("linear_bias", linear_bias, FLOATS)
        _shape("linear_bias", linear_bias, (items,), "one for each item")
    if sample_weight is not None:
        _dtype("sample_weight", sample_weight, FLOATS)
        _shape("sample_weight", sample_weight, rows, "that of target")
    if log_q is not None:
        _dtype("log_q", log_q, FLOATS)
        _shape("log_q", log_q, (items,), "one for each item")
    if history is not None:
        check_history_arrays(history, rows)
    others = {
        "linear_weight": linear_weight, "target": target, "negatives": ids, "linear_bias": linear_bias,
        "sample_weight": sample_weight, "log_q": log_q,
    }  # fmt: skip
    for argument, spec in (*others.items(), *(("history", spec) for spec in history or ())):
        if spec is not None and spec.device != input.device:
            raise ArgumentValueError(argument, f"device {input.device}, that of input", spec.device)


def check_history_arrays(history: tuple[Spec, ...], rows: tuple[int, ...]) -> None:
    """Raise for a history's arrays of other dtypes, or of other shapes than for ``rows``, the shape of target."""
    users, offsets, items = history
    for spec in history:
        _dtype("history", spec, INTEGERS)
    if users.shape != rows:
        raise ArgumentValueError("history", f"users of shape {rows}, that of target", users.shape)
    if len(offsets.shape) != 1 or offsets.shape[0] < 2 or len(items.shape) != 1:
        raise ArgumentValueError(
            "history", "offsets (U + 1,) of one user or more and items (n,)", f"{offsets.shape} and {items.shape}"
        )
    if items.shape[0] >= 2**31:
        raise ArgumentValueError("history", "fewer than 2^31 items of all users", items.shape[0])


@dataclass(frozen=True)
class Options:
    """The loss's checked static options."""

    ignore_index: int
    reduction: str
    softcap: float | None
    remove_accidental_hits: bool
    return_lse: bool
    impl: str
    logq_correction: bool = True

    def __post_init__(self) -> None:
        check_ignore_index(self.ignore_index)
        if self.reduction not in REDUCTIONS:
            raise ArgumentValueError("reduction", " or ".join(REDUCTIONS), repr(self.reduction))
        if self.impl not in IMPLS:
            raise ArgumentValueError("impl", " or ".join(IMPLS), repr(self.impl))
        for argument in ("remove_accidental_hits", "return_lse", "logq_correction"):
            if not isinstance(getattr(self, argument), bool):
                raise ArgumentTypeError(argument, "a bool", type(getattr(self, argument)).__name__)
        if self.softcap is not None:
            object.__setattr__(self, "softcap", as_positive("softcap", self.softcap))


def check_ignore_index(value: object) -> None:
    ignore_index = as_index("ignore_index", value)
    if not -(2**63) <= ignore_index < 2**63:
        raise ArgumentValueError("ignore_index", "an int of 64 bits", ignore_index)


IGNORED = -1  # the target of ignored rows among a working set's places


def own_options(given: Any, options: Options) -> Options:
    """The options of a call on the working set ``given``, whose targets are places; raises for another
    ``ignore_index``, and for what its sampler has no use for."""
    if options.ignore_index != given.ignore_index:
        raise ArgumentValueError("ignore_index", f"{given.ignore_index}, the working set's", options.ignore_index)
    if given.sampler.in_batch:
        _check_in_batch(given.log_weight is not None, options)
    return replace(options, ignore_index=IGNORED)


def check_working_set(given: Any, num_rows: int, target_shape: tuple[int, ...], **others: object) -> None:
    """Raise for a table of other rows than those of the working set ``given``, and for ``others``, arguments that it
    was made with."""
    if num_rows != given.ids.shape[0]:
        expected = f"the {given.ids.shape[0]} rows of the working set, {given.num_items} items being its catalog"
        raise ArgumentValueError("linear_weight", expected, f"{num_rows} rows")
    if tuple(target_shape) != tuple(given.target.shape):
        raise ArgumentValueError("target", f"shape {tuple(given.target.shape)}, as of the working set", target_shape)
    for argument, value in others.items():
        if value is not None:
            raise ArgumentTypeError(argument, "None beside a working set, which was made with its own", value)


def gbce_positive_weight(gbce_t: object, negatives: object, num_items: int) -> float:
    """beta of gBCE (arXiv 2308.07192, section 5): ``alpha (t (1 - 1 / alpha) + 1 / alpha)`` with ``alpha = K / (V -
    1)``, at most 1.

    1 where ``gbce_t`` is None or 0. Raises for a t outside [0, 1] and for negatives that are not drawn uniformly.
    """
    if gbce_t is None:
        return 1.0
    t = as_number("gbce_t", gbce_t)
    if not 0 <= t <= 1:
        raise ArgumentValueError("gbce_t", "a number in [0, 1]", gbce_t)
    alpha = negatives.sampling_rate(num_items) if isinstance(negatives, Negatives) else None
    if alpha is None:
        raise ArgumentTypeError(
            "gbce_t", "None but for UniformNegatives: its beta follows from their sampling rate", "a number"
        )
    return 1.0 - t * (1.0 - alpha)


def check_log_q(negatives: object, log_q: object, options: Options) -> None:
    """Raise for probabilities that nothing would be corrected by, for missing ones, and for in-batch negatives whose
    hits are kept."""
    in_batch = isinstance(negatives, Negatives) and negatives.in_batch
    if log_q is not None and not options.logq_correction:
        raise ArgumentValueError("log_q", "None where logq_correction is False", "an array")
    if log_q is not None and isinstance(negatives, Negatives) and not in_batch:
        raise ArgumentTypeError(
            "log_q", "None but for explicit ids and in-batch negatives: a sampler knows its own", "an array"
        )
    if in_batch:
        _check_in_batch(log_q is not None, options)


def _check_in_batch(knows_q: bool, options: Options) -> None:
    if not knows_q and options.logq_correction:
        expected = "the log (V,) of how often items are targets, or logq_correction=False, beside in-batch negatives"
        raise ArgumentTypeError("log_q", expected, "None")
    if not options.remove_accidental_hits:
        raise ArgumentValueError(
            "remove_accidental_hits", "True beside in-batch negatives, which hold the row's own target", False
        )


def check_own_log_q(negatives: Negatives, log_q: Spec | None, num_items: int) -> None:
    """Raise for a working set's ``log_q`` that is none of its ``num_items``, or that ``negatives`` have no use for."""
    if log_q is None:
        return
    if not negatives.in_batch:
        raise ArgumentTypeError("log_q", "None but for in-batch negatives: a sampler knows its own", "an array")
    _dtype("log_q", log_q, FLOATS)
    _shape("log_q", log_q, (num_items,), "one for each item")


def check_binary_negatives(negatives: object) -> None:
    """Raise for samplers, or a working set's, that binary cross-entropy is not defined with."""
    negatives = getattr(negatives, "sampler", negatives)
    if isinstance(negatives, Negatives) and negatives.not_binary is not None:
        kinds = "UniformNegatives, PopularityNegatives, LogUniformNegatives or integer ids"
        raise ArgumentTypeError("negatives", f"{kinds}: {negatives.not_binary}", type(negatives).__name__)


def correction_of(draw: Draw, log_weight: object, options: Options, positive_weight: float | None) -> Correction:
    """How the kernels correct the scores of a call's negatives."""
    if positive_weight is not None or not options.logq_correction:
        return "none"
    return draw.correction if log_weight is None else "weighted"


def check_rate(rate: object) -> None:
    """Raise for a rate of a running estimate outside (0, 1]."""
    if not 0 < as_number("rate", rate) <= 1:
        raise ArgumentValueError("rate", "a number above 0, at most 1", rate)
