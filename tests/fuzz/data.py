"""The arrays of a call, drawn for a signature: extreme logits, items out of stock, anything in ignored rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from cce_minus.kernels import MixedNegatives
from cce_minus.kernels.negatives.weighted import WeightedNegatives
from numpy.typing import NDArray

from tests.fuzz.signatures import Signature, chance
from tests.inputs import Case, Inputs, Int64, popular_item
from tests.oracle import EMPTY_SLOT
from tests.tolerance import Logits, product_size

Generator = np.random.Generator
FAR = 1e4  # of the largest logits
RUBBISH = (np.nan, np.inf, -np.inf, 3e38)


@dataclass(frozen=True)
class Data:
    inputs: Inputs  # zeros where rows are ignored, for the oracle and the plain implementation
    given: Inputs  # what the loss is called with
    traits: str  # how they were drawn
    logits: Logits  # the largest that rounding reaches


def rounded(array: NDArray[np.floating], dtype: torch.dtype) -> NDArray[np.float32]:
    return torch.tensor(array).to(dtype).float().numpy()


def draw(signature: Signature, rng: Generator) -> Data:
    case = signature.case
    assert isinstance(case, Case)
    n, v = case.num_rows, case.num_items
    target, ignored, goals = _targets(case, rng)
    hidden, table, logits = _vectors(signature, case, target, rng)
    bias, stock = _bias(case, target[~ignored], logits, rng)
    ids, of_ids = _ids(case, signature, target, rng)
    log_q = _log_q(v, rng) if case.knows_q else None
    history, excluded = _history(signature, case, target, log_q, rng)
    u, w = rng.standard_normal((2, n)) * 2.0 ** rng.integers(-6, 1)
    upstream = rng.choice(["both", "both", "loss", "lse"])
    if signature.kind.startswith("binary"):
        upstream = "loss"
    weight = rng.uniform(0, 2, n) * (rng.random(n) > rng.choice([0.0, 0.3, 0.9, 1.0], p=[0.3, 0.4, 0.2, 0.1]))
    hidden[ignored] = 0
    clean = Inputs(
        hidden=rounded(hidden, signature.dtype),
        table=rounded(table, signature.dtype),  # a wide one, too, which the losses round to it
        bias=None if bias is None else rounded(bias, torch.float32 if signature.how.wide_bias else signature.dtype),
        target=target,
        sample_weight=np.where(ignored, 0, weight).astype(np.float32) if case.weighted else None,
        ids=ids,
        grad_loss=(u * (upstream != "lse")).astype(np.float32),
        grad_lse=(w * (upstream != "loss")).astype(np.float32),
        counts=np.ones(v, np.int64),  # of no use: the sampler has its own
        log_q=log_q,
        history=history,
        excluded=excluded,
    )
    traits = ", ".join((goals, logits, stock, of_ids, str(upstream)))
    if not case.contiguous:
        clean = replace(clean, hidden=np.repeat(clean.hidden, 2, axis=1)[:, ::2], table=np.asfortranarray(clean.table))
    return Data(clean, _with_rubbish(clean, ignored, rng), traits, _largest(case, clean, logits))


def _targets(case: Case, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.bool_], str]:
    n, v = case.num_rows, case.num_items
    kind = str(rng.choice(["uniform", "uniform", "popular", "few"]))
    target = rng.integers(0, v, n)
    if kind == "popular":
        target[rng.random(n) < 0.9] = popular_item(v)
    elif kind == "few":
        target = rng.integers(0, min(v, 3), n)
    share = str(rng.choice(["none", "some", "most", "all", "but one"], p=[0.3, 0.45, 0.1, 0.05, 0.1]))
    gone = {"none": 0, "some": n // 3, "most": n - n // 16, "all": n, "but one": n - 1}[share]
    target[rng.permutation(n)[:gone]] = case.ignore_index
    return target, target == case.ignore_index, f"{kind} targets, {share} ignored"


def _vectors(
    signature: Signature, case: Case, target: NDArray[np.int64], rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    n, v, d = case.num_rows, case.num_items, case.dim
    hidden = rng.standard_normal((n, d))
    table = 2 * rng.standard_normal((v, d)) / np.sqrt(d)
    kind = str(rng.choice(["plain", "extreme", "confident", "low row", "low item"], p=[0.5, 0.15, 0.1, 0.15, 0.1]))
    exact = abs(case.logit_scale) in (0.5, 1.0, 2.0)
    if kind in ("extreme", "low row", "low item") and not exact:
        kind = "plain"
    if kind == "confident":
        of_target = table[np.clip(target, 0, v - 1)]
        hidden = 24 * of_target / (of_target**2).sum(1, keepdims=True).clip(0.05) * np.sign(case.logit_scale)
    if kind in ("extreme", "low row", "low item"):
        # on a grid: see tests.inputs
        table = np.round(table * 16) / (1 if signature.dtype == torch.float16 else 16)
        far = hidden * FAR / max(np.abs(hidden @ table.T).max(), 1e-9)
        if kind == "extreme":
            hidden = np.round(far)
        elif kind == "low row":
            hidden[rng.integers(n)] = np.round(far)[rng.integers(n)]
        else:
            item = rng.integers(v)
            hidden = np.round(hidden * 4) / 4
            table[item] = -np.sign(hidden[rng.integers(n)]) * 64
    return hidden, table, f"{kind} logits"


def _bias(case: Case, wanted: NDArray[np.int64], logits: str, rng: Generator) -> tuple[NDArray[np.float64] | None, str]:
    """Of items, and how; -inf for none that is a target, whose loss would be infinite."""
    if not case.has_bias:
        return None, "no bias"
    v = case.num_items
    bias = np.round(rng.standard_normal(v) * 16) / 16
    kind = str(rng.choice(["plain", "-100", "all -100", "far", "out of stock"], p=[0.4, 0.15, 0.1, 0.1, 0.25]))
    if kind == "-100":
        bias[rng.random(v) < rng.choice([0.1, 0.9])] = -100
    elif kind == "all -100":
        bias[:] = -100
    elif kind == "far":
        bias = np.round(rng.choice([-FAR, 0, FAR], v) / 64) * 64
    elif kind == "out of stock":
        gone = rng.random(v) < rng.choice([0.1, 0.5, 0.95, 1.0])
        gone[wanted] = False
        bias[gone] = -np.inf
    return bias, f"{kind} bias"


def _ids(
    case: Case, signature: Signature, target: NDArray[np.int64], rng: Generator
) -> tuple[NDArray[np.int64] | None, str]:
    if signature.negatives is not None:
        return None, "drawn"
    n, v, k = case.num_rows, case.num_items, case.num_negatives
    shape = (k,) if case.mode == "shared_ids" else (n, k)
    kind = str(rng.choice(["uniform", "few", "popular", "own targets"]))
    ids = rng.integers(0, v, shape)
    if kind == "few":
        ids = rng.integers(0, min(5, v), shape)
    elif kind == "popular":
        ids[:] = popular_item(v)
    elif kind == "own targets" and len(shape) == 2:
        ids[:] = np.clip(target, 0, v - 1)[:, None]
    if chance(rng, 0.5):
        ids[rng.random(shape) < rng.choice([0.1, 0.5, 1.0])] = EMPTY_SLOT
        kind += " and empty"
    return ids, f"{kind} ids"


def _log_q(num_items: int, rng: Generator) -> NDArray[np.float32]:
    """Of a heavy tail, of about equal items, of items that differ by orders of magnitude."""
    spread = rng.choice([0.1, 1.0, 3.0])
    log_q = spread * rng.standard_normal(num_items)
    # 1 - q of an item that is all but always drawn has few digits left in float32
    return np.minimum(log_q - np.log(np.exp(log_q).sum()), np.log(0.9)).astype(np.float32)


def _history(
    signature: Signature, case: Case, target: NDArray[np.int64], log_q: NDArray[np.float32] | None, rng: Generator
) -> tuple[tuple[Int64, Int64, Int64] | None, NDArray[np.bool_] | None]:
    """Of a user without items, and of one who may have them all where draws are uniform.

    Elsewhere what is neither a row's target nor its user's has a probability of at least 0.01: it is a difference of
    sums near 1, of which rounding leaves nothing below.
    """
    if not case.has_history:
        return None, None
    v = case.num_items
    owned = rng.random((4, v)) < rng.choice([0.05, 0.3])
    owned[0] = False
    users = rng.integers(0, 4, case.num_rows)
    probabilities = [np.exp(log_q.astype(np.float64))] if log_q is not None else []
    of = signature.negatives
    for sampler in (of.first, of.second) if isinstance(of, MixedNegatives) else (of,):
        if isinstance(sampler, WeightedNegatives):
            weights = sampler.weights(v)
            probabilities.append(weights / weights.sum())
    if not probabilities and not isinstance(of, MixedNegatives) and chance(rng, 0.3):
        owned[1] = True
    gone = owned[users] | (np.arange(v) == target[:, None])
    for q in probabilities:
        users[~gone @ q < 0.01] = 0
    return (users, np.append(0, np.cumsum(owned.sum(1))), np.nonzero(owned)[1]), owned[users]


def _with_rubbish(clean: Inputs, ignored: NDArray[np.bool_], rng: Generator) -> Inputs:
    """What no result may depend on, in the rows that are ignored."""
    if not ignored.any() or chance(rng, 0.3):
        return clean
    hidden = clean.hidden.copy()
    hidden[ignored] = rng.choice(RUBBISH, hidden[ignored].shape)
    changed: dict[str, Any] = {"hidden": hidden}
    for name in ("grad_loss", "grad_lse"):
        changed[name] = np.where(ignored, rng.choice(RUBBISH), getattr(clean, name)).astype(np.float32)
    if clean.sample_weight is not None:
        changed["sample_weight"] = np.where(ignored, rng.choice(RUBBISH), clean.sample_weight).astype(np.float32)
    if clean.ids is not None and clean.ids.ndim == 2:
        ids = clean.ids.copy()
        ids[ignored] = rng.choice([-7, 10**6, 2**31 - 1], ids[ignored].shape)
        changed["ids"] = ids
    if clean.history is not None:
        users = np.where(ignored, rng.choice([-3, 10**6]), clean.history[0])
        changed["history"] = (users, *clean.history[1:])
    return replace(clean, **changed)


def largest_logit(
    hidden: NDArray[np.floating], table: NDArray[np.floating], bias: NDArray[np.floating] | None,
    logit_scale: float, softcap: float | None, most: float = np.inf,
) -> Logits:  # fmt: skip
    """Dot products, at ``most`` so large, are rounded as a product of the vectors' lengths, and a softcap's exponential
    is good to 2^-22 on a GPU."""
    size = min(product_size(hidden, table, logit_scale), most)
    if bias is not None:
        size += float(np.abs(bias[np.isfinite(bias)]).max(initial=0))
    return Logits(size) if softcap is None else Logits(2 * min(size, softcap), 2 * size / softcap)


def _largest(case: Case, inputs: Inputs, logits: str) -> Logits:
    """The same of what rounding reaches: logits on a grid are exact, or far below all others."""
    if logits == "extreme logits":
        return Logits(0.0)
    most = 10.0 if logits.startswith("low") else np.inf
    size = largest_logit(inputs.hidden, inputs.table, inputs.bias, case.logit_scale, case.softcap, most)
    if inputs.ids is None:
        return size
    # a sum of n terms is rounded by sqrt(n) 2^-24 (Higham and Mary, 2019), half as much as a logit of sqrt(n)
    named = np.broadcast_to(inputs.ids, (case.num_rows, inputs.ids.shape[-1]))
    named_most = np.bincount(named[named >= 0], minlength=1).max()
    return size._replace(scores=size.scores + float(np.sqrt(named_most) / 2))
