"""A step of sampled cross-entropy small enough to compute beside it: what a framework finds against float64 NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-4
"""Of the largest number of a result, in float32. Products rounded to tf32 or bfloat16 miss it."""

ROWS, ITEMS, DIM, NEGATIVES, GROUP, SEED = 96, 500, 32, 64, 32, 7
"""Of the step: rows in groups of `GROUP`, which share `NEGATIVES` uniform ones."""


class Results(NamedTuple):
    """The mean loss, and its gradients for the hidden states (N, D) and the table (V, D)."""

    loss: npt.NDArray[np.floating]
    of_hidden: npt.NDArray[np.floating]
    of_table: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Done:
    """A step on ``place``: its results, the seconds of the first call, which compiles, and those of a second one."""

    place: str
    results: Results
    first_seconds: float
    second_seconds: float


class Inputs(NamedTuple):
    """hidden (N, D) float32, table (V, D) float32, target (N,) int64."""

    hidden: npt.NDArray[np.float32]
    table: npt.NDArray[np.float32]
    target: npt.NDArray[np.int64]


def inputs() -> Inputs:
    """The same at every call."""
    rng = np.random.default_rng(SEED)
    hidden, table = (rng.standard_normal((rows, DIM), dtype=np.float32) for rows in (ROWS, ITEMS))
    return Inputs(hidden, table, rng.integers(0, ITEMS, ROWS))


def reference(given: Inputs, ids: npt.NDArray[np.int64]) -> Results:
    """In float64, for the drawn ``ids`` (N, K), with the m of a row's that are not its target:
    ``loss = mean of logsumexp(s_t, s_j + log((V - 1) / m), ..) - s_t``."""
    hidden, table = given.hidden.astype(np.float64), given.table.astype(np.float64)
    rows = np.arange(len(hidden))
    kept = ids != given.target[:, None]
    correction = np.log((len(table) - 1) / kept.sum(1, keepdims=True))
    scores = hidden @ table.T
    drawn = np.where(kept, scores[rows[:, None], ids] + correction, -np.inf)
    positive = scores[rows, given.target]
    lse = np.logaddexp(positive, np.logaddexp.reduce(drawn, axis=1))
    weights = np.zeros_like(scores)
    np.add.at(weights, (rows[:, None], ids), np.exp(drawn - lse[:, None]))
    weights[rows, given.target] += np.exp(positive - lse) - 1
    weights /= len(hidden)
    return Results(np.asarray((lse - positive).mean()), weights @ table, weights.T @ hidden)


def errors(found: Results, expected: Results) -> dict[str, float]:
    """By name, the largest difference over the largest magnitude; NaN where a result is."""
    names = ("loss", "gradient of hidden states", "gradient of the table")
    return {
        name: float(np.max(np.abs(got - want)) / np.max(np.abs(want)))
        for name, got, want in zip(names, found, expected, strict=True)
    }
