"""What a case is that every implementation is compared with the oracle on, and its inputs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tests.oracle import EMPTY_SLOT

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

Mode = Literal["independent", "grouped", "all", "shared_ids", "row_ids"]
SAMPLED: tuple[Mode, ...] = ("independent", "grouped")
EXPLICIT: tuple[Mode, ...] = ("shared_ids", "row_ids")


@dataclass(frozen=True)
class Case:
    """One comparison; the fields after dim that a mode has no use for keep their defaults."""

    name: str
    reason: str
    mode: Mode
    num_rows: int
    num_items: int
    dim: int = 64
    num_negatives: int = 0  # 0 in mode "all"
    group_size: int = 1
    shuffle_rows: bool = True
    has_bias: bool = False
    softcap: float | None = None
    logit_scale: float = 1.0
    remove_accidental_hits: bool = True
    ignored: Literal["none", "some", "most", "all"] = "none"
    ignore_index: int = -100
    targets: Literal["uniform", "popular"] = "uniform"
    ids: Literal["uniform", "repeated", "empty_slots", "target", "popular"] = "uniform"
    logits: Literal["plain", "extreme", "confident", "low_row"] = "plain"
    # of a case that has_bias: all at -100; a third, or all but one, of the items masked out; a NaN and an infinite one
    biases: Literal["plain", "low", "gone", "all_gone", "not_finite"] = "plain"
    contiguous: bool = True
    weighted: bool = False
    reduction: Literal["none", "mean", "sum"] = "none"
    upstream: Literal["both", "loss", "lse"] = "both"
    positive_weight: float | None = None  # binary cross-entropy with this weight of the positive's term
    gbce_t: float | None = None
    # of grouped rows; "mixed": uniform and in-batch, "mixed_weighted": popularity and log-uniform
    sampler: str = "uniform"  # as tests.loss.samplers has them by name
    pool: int = 0  # of hard negatives
    knows_q: bool = False  # explicit ids, or rows' targets, come with the log of their items' draw probabilities
    has_history: bool = False
    logq_correction: bool = True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Inputs:
    """Arrays of a case; grad_loss is the gradient of the loss when the reduction is none.

    Ignored rows hold NaN, malformed ids of their own and users that there are not: nobody may read them.
    """

    hidden: Float32  # (N, D)
    table: Float32  # (V, D)
    bias: Float32 | None  # (V,)
    target: Int64  # (N,)
    sample_weight: Float32 | None  # (N,)
    ids: Int64 | None  # (K,) shared_ids, (N, K) row_ids, None otherwise
    grad_loss: Float32  # (N,)
    grad_lse: Float32  # (N,)
    counts: Int64  # (V,) of the sampler "popularity", heavy-tailed, some 0
    log_q: Float32 | None  # (V,)
    history: tuple[Int64, Int64, Int64] | None  # users (N,), offsets, items
    excluded: NDArray[np.bool_] | None  # (N, V), the same


def popular_item(num_items: int) -> int:
    """The item that most rows of a case with popular targets have as their target."""
    return num_items // 2


def make_inputs(case: Case, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    """The same arrays for the same case name and seed, on every machine.

    Hidden, table and bias are float32 arrays of values that ``dtype`` represents exactly, so that the oracle
    sees what an implementation in that dtype is given.
    """
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    n, v, d = case.num_rows, case.num_items, case.dim
    hidden = rng.standard_normal((n, d))
    table = 2 * rng.standard_normal((v, d)) / np.sqrt(d)
    target = rng.integers(0, v, n)
    if case.targets == "popular":
        target[rng.random(n) < 0.9] = popular_item(v)
    if case.ignored == "all":
        target[:] = case.ignore_index
    elif case.ignored != "none":
        share = {"some": n // 3, "most": n - n // 16}[case.ignored]
        target[rng.permutation(n)[: max(1, share)]] = case.ignore_index

    if case.logits == "extreme":
        # Entries on a coarse grid: every logit is exact in float32 in any order of summation, so a comparison
        # sees overflow and bad shifts, not the luck of one rounding at a logit of 1e4.
        table = np.round(table * 16) / 16
        hidden = np.round(hidden * 1e4 / np.abs(hidden @ table.T).max())
    elif case.logits == "low_row":
        # The first row's logits lie around -40, the others' around 0.
        table[:, 0], hidden[0, 0] = 1, -40
    elif case.logits == "confident":
        # A target logit of 24 among negatives with a deviation of 3: 1 - p_target is about 1e-6.
        direction = table[target] / np.linalg.norm(table[target], axis=1, keepdims=True)
        hidden = 24 * direction / np.linalg.norm(table[target], axis=1, keepdims=True)

    u, w = rng.standard_normal((2, n))
    weight = rng.uniform(0, 2, n) * (rng.random(n) > 0.2)
    hidden, table = _rounded(hidden, dtype), _rounded(table, dtype)
    counts = np.floor(50 / (1 + rng.permutation(v))).astype(np.int64) + (case.knows_q or v < 3)
    history = excluded = None
    if case.has_history:
        owned = rng.random((4, v)) < 0.2
        owned[0] = False
        users = rng.integers(0, 4, n)
        history = users, np.append(0, np.cumsum(owned.sum(1))), np.nonzero(owned)[1]
        excluded = owned[users]
    bias = _rounded(_biases(case, rng), dtype) if case.has_bias else None
    ids = _explicit_ids(case, target, rng)
    ignored = target == case.ignore_index
    for array in (hidden, weight, u, w):
        array[ignored] = np.nan
    if history is not None:
        history[0][ignored] = 99
    if case.mode == "row_ids" and ids is not None:
        ids[ignored, 0] = v + 5
    if not case.contiguous:
        hidden = np.repeat(hidden, 2, axis=1)[:, ::2]
        table = np.asfortranarray(table)
    return Inputs(
        hidden=hidden,
        table=table,
        bias=bias,
        target=target,
        sample_weight=weight.astype(np.float32) if case.weighted else None,
        ids=ids,
        grad_loss=(u * (case.upstream != "lse")).astype(np.float32),
        grad_lse=(w * (case.upstream != "loss")).astype(np.float32),
        counts=counts,
        log_q=np.log(counts / counts.sum()).astype(np.float32) if case.knows_q else None,
        history=history,
        excluded=excluded,
    )


def _biases(case: Case, rng: np.random.Generator) -> NDArray[np.float64]:
    bias = rng.standard_normal(case.num_items)
    if case.biases == "low":
        bias -= 100
    elif case.biases == "gone":
        bias[rng.random(case.num_items) < 1 / 3] = -np.inf
    elif case.biases == "all_gone":
        bias[np.arange(case.num_items) != popular_item(case.num_items)] = -np.inf
    elif case.biases == "not_finite":
        bias[:2] = np.nan, np.inf
    return bias


def _rounded(array: NDArray[np.float64], dtype: torch.dtype) -> Float32:
    return torch.tensor(array).to(dtype).float().numpy()


def _explicit_ids(case: Case, target: Int64, rng: np.random.Generator) -> Int64 | None:
    if case.mode not in EXPLICIT:
        return None
    shape = (case.num_negatives,) if case.mode == "shared_ids" else (case.num_rows, case.num_negatives)
    if case.ids == "repeated":
        return rng.integers(0, min(5, case.num_items), shape)
    if case.ids == "target":
        return np.broadcast_to(target[:, None], shape).copy()
    if case.ids == "popular":
        return np.full(shape, popular_item(case.num_items))
    ids = rng.integers(0, case.num_items, shape)
    if case.ids == "empty_slots":
        ids[rng.random(shape) < 0.4] = EMPTY_SLOT
        if len(shape) == 2:
            ids[0] = EMPTY_SLOT  # one row with no negative at all
    return ids


def options(case: Case, inputs: Inputs) -> dict[str, Any]:
    """The keyword arguments that the oracle and the plain implementation take for this case."""
    return {
        "bias": inputs.bias,
        "logit_scale": case.logit_scale,
        "softcap": case.softcap,
        "remove_accidental_hits": case.remove_accidental_hits,
        "ignore_index": case.ignore_index,
        "grad_loss": inputs.grad_loss,
        "grad_lse": inputs.grad_lse,
        "positive_weight": case.positive_weight,
        "log_q": inputs.log_q,
        "logq_correction": case.logq_correction,
        "excluded": inputs.excluded,
    }


def spread_over_rows(drawn: NDArray[np.integer], target: Int64, ignore_index: int) -> Int64:
    """A sampler's ids (non-ignored rows, K) as (N, K), ignored rows with empty slots."""
    active = target != ignore_index
    if len(drawn) != active.sum():
        raise ValueError(f"drawn: expected one row for each of {active.sum()} non-ignored rows, got {len(drawn)}")
    ids = np.full((len(target), drawn.shape[1]), EMPTY_SLOT, np.int64)
    ids[active] = drawn
    return ids
