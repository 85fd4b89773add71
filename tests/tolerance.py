"""When a result counts as right: an error like that of a plain implementation in the same dtype."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tests.oracle import OracleResult

ALLOWED_RATIO = 2.0

# What a right result may miss beside twice the plain error, which can be small by luck. float16, bfloat16:
# their unit roundoff, since a tensor-core product rounds probabilities to the input dtype once more.
# float32, float64: a few units in the last place, by which another order of summing differs.
FLOOR: dict[torch.dtype, float] = {
    torch.float64: 2.0**-44,
    torch.float32: 2.0**-20,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}

# What a number of each dtype is a multiple of, at least: float16's subnormals; others' are flushed to zero.
STEP: dict[torch.dtype, float] = {
    torch.float64: 2.0**-1022,
    torch.float32: 2.0**-126,
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-126,
}

# A row of less than this share of the largest row is measured against that share instead of its own size.
SMALLEST_ROW = 1e-2


class Logits(NamedTuple):
    """How large logits are to the rounding errors of what comes of them, in units of float32's."""

    scores: float  # of exp(s), through a softcap
    slopes: float = 0.0  # of a softcap's derivative 1 / cosh^2(x / softcap), where 1 is a relative error of all of it


def product_size(hidden: NDArray[np.floating], table: NDArray[np.floating], scale: float) -> float:
    """As which dot products are rounded: the product of the vectors' largest lengths."""
    lengths = (np.linalg.norm(rows, axis=1).max(initial=0) for rows in (hidden, table))
    return float(abs(scale) * np.prod(list(lengths)))


def errors(actual: NDArray[np.float64], truth: NDArray[np.float64], terms: ArrayLike = 0.0) -> dict[str, float]:
    """Relative L2 error, relative largest error and, of a matrix, the relative L2 error of its worst row.

    The truth counts as at least as large as its ``terms`` (of its shape, or a scalar), the root of the sum of squares
    of what it is a sum of: where these cancel, what is left is no smaller than their rounding errors.
    L2 is ``||actual - truth|| / ||truth||``, the largest error is divided by ``max |truth|``. Errors are absolute where
    the truth is all zero; entries whose truth is NaN or infinite are left out. The worst row catches a wrong gradient
    of a rare item, which is small beside that of the targets.
    """
    known = np.isfinite(truth)
    size = np.where(known, truth, 0.0)
    miss = np.where(known, actual, 0.0) - size
    size = np.maximum(np.abs(size), np.where(np.isfinite(terms), terms, 0.0))
    found = {
        "relative L2 error": np.linalg.norm(miss) / (np.linalg.norm(size) or 1.0),
        "relative largest error": np.abs(miss).max(initial=0) / (size.max(initial=0) or 1.0),
    }
    if truth.ndim == 2:
        rows = np.linalg.norm(size, axis=1)
        smallest = SMALLEST_ROW * rows.max(initial=0) or 1.0
        found["relative L2 error of the worst row"] = (np.linalg.norm(miss, axis=1) / np.maximum(rows, smallest)).max(
            initial=0
        )
    return {kind: float(error) for kind, error in found.items()}


def assert_close(
    name: str,
    actual: Any,
    oracle: ArrayLike,
    plain: ArrayLike,
    dtype: torch.dtype,
    *,
    terms: ArrayLike = 0.0,
    least: float = 0.0,
) -> float:
    """Fail unless each error of ``actual`` is at most twice that of ``plain``, plus the dtype's floor; the largest
    share of that which one takes.

    Args:
        name: what is compared, for the message.
        actual: array, or torch tensor on any device.
        oracle: the truth, same shape. NaN and infinities must be where the truth has them and nowhere else.
        plain: the yardstick, `tests.plain.plain` in the same dtype.
        dtype: what ``actual`` was rounded to. Loss, lse and dscale are float32 whatever the inputs are.
        terms: how large the terms are that the truth is a sum of, as in `errors`.
        least: what the plain error counts as at least.
    """
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().double().cpu().numpy()
    got, truth, yardstick = (np.asarray(x, np.float64) for x in (actual, oracle, plain))
    assert got.shape == truth.shape, f"{name}: shape {got.shape}, expected {truth.shape}"
    assert yardstick.shape == truth.shape, f"{name}: the plain shape is {yardstick.shape}, not {truth.shape}"
    wrong = np.isnan(got) != np.isnan(truth)
    assert not wrong.any(), (
        f"{name}: NaN in {np.isnan(got).sum()} entries, expected in {np.isnan(truth).sum()}; first difference at "
        f"{_first(wrong)}"
    )
    wrong = (np.isinf(got) | np.isinf(truth)) & (got != truth)
    assert not wrong.any(), f"{name}: {got[wrong][0]} instead of {truth[wrong][0]} at {_first(wrong)}"
    assert np.isfinite(yardstick[np.isfinite(truth)]).all(), f"{name}: the plain result overflows: no yardstick"

    if truth.any() or np.any(terms):
        terms = np.fmax(terms, STEP[dtype] / FLOOR[dtype])  # a miss of a step is within the floor
    allowed, share = errors(yardstick, truth, terms), 0.0
    for kind, ours in errors(got, truth, terms).items():
        limit = ALLOWED_RATIO * max(allowed[kind], least) + FLOOR[dtype]
        assert ours <= limit, (
            f"{name}: {kind} {ours:.3e}, plain {dtype} has {allowed[kind]:.3e}, allowed {limit:.3e}; "
            f"largest difference at {_first(_is_largest(got, truth))}"
        )
        share = max(share, ours / limit)
    return share


def assert_result_close(
    name: str, actual: Any, oracle: OracleResult, plain: OracleResult, dtype: torch.dtype, *, least: float = 0.0
) -> float:
    """`assert_close` for one field of `OracleResult`, with the dtype and terms that belong to it.

    ``dtype`` is that of the inputs, and of dhidden, dtable and dbias; loss, lse and dscale are float32.
    """
    stored = torch.float32 if name in ("loss", "lse", "dscale") and dtype != torch.float64 else dtype
    terms = getattr(oracle.terms, name, 0.0)
    return assert_close(name, actual, getattr(oracle, name), getattr(plain, name), stored, terms=terms, least=least)


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _is_largest(got: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    miss = np.abs(np.where(np.isfinite(truth), got - truth, 0.0))
    return miss == miss.max()
