"""Scalable cross-entropy written from its formulas, in float64 with autograd and loops, and runs of both frameworks'
functions."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import erfinv
from torch import Tensor

from tests.loss.samplers import UnclearChoice
from tests.tolerance import FLOOR, Logits, assert_close

SEED = 2**63 + 12345  # both words in use, and negative as an int64
NAMES = ("loss", "dinput", "dweight", "dbias", "dscale", "dsample_weight")
Mistake = Literal["hits kept", "smallest bucket", "mean over all rows", "ignored rows in buckets"]
Chosen = tuple[np.ndarray, np.ndarray]  # rows (B, X) and items (B, Y) of buckets


@dataclass(frozen=True)
class Case:
    name: str
    num_rows: int
    num_items: int
    n_buckets: int
    bucket_size_x: int
    bucket_size_y: int
    dim: int = 16
    mix_x: bool = False
    ignored: int = 0  # rows
    rubbish: float = 0.0  # what their hidden states hold, if not numbers like the others
    ignore_index: int = -100
    has_bias: bool = False
    softcap: float | None = None
    logit_scale: float = 1.0
    weighted: bool = False
    reduction: Literal["none", "mean", "sum"] = "mean"

    def __str__(self) -> str:
        return self.name

    @property
    def sizes(self) -> dict[str, Any]:
        names = ("n_buckets", "bucket_size_x", "bucket_size_y", "mix_x")
        return {name: getattr(self, name) for name in names}

    @property
    def options(self) -> dict[str, Any]:
        names = ("ignore_index", "softcap", "reduction")
        return {name: getattr(self, name) for name in names}


EVERYTHING: dict[str, Any] = {"has_bias": True, "softcap": 3.0, "logit_scale": 1.3, "weighted": True}
CASES = (
    Case("plain", 60, 90, 6, 16, 20),
    Case("mixed", 60, 90, 6, 16, 20, mix_x=True, ignored=9),
    Case("small_buckets", 40, 90, 7, 5, 7, reduction="sum"),
    Case("48_rows", 70, 200, 3, 48, 100, dim=20, reduction="none", has_bias=True),
    Case("100_rows", 150, 130, 3, 100, 65, dim=8, ignored=20, **EVERYTHING),
    Case("300_rows", 340, 60, 2, 300, 33, dim=4),
    Case("few_rows_count", 40, 90, 4, 16, 20, ignored=30, reduction="none", weighted=True),
    Case("one_row_counts", 9, 30, 2, 4, 8, ignored=8, has_bias=True),
    Case("all_ignored", 20, 30, 2, 8, 8, ignored=20, has_bias=True, mix_x=True),
    Case("ignore_item", 50, 40, 5, 16, 16, ignored=12, ignore_index=0, reduction="sum", has_bias=True),
    Case("beyond_the_batch", 30, 40, 3, 100, 200, mix_x=True, **EVERYTHING),
    Case("one_item", 30, 12, 8, 10, 1, has_bias=True),
    Case("everything", 64, 100, 5, 20, 30, dim=24, mix_x=True, ignored=15, reduction="sum", **EVERYTHING),
    Case("one_bucket", 12, 20, 1, 1, 1, reduction="none"),
)


def normals(seed: int, rows: int, columns: int) -> np.ndarray:
    """The contract of ``kernels.normals`` in 64-bit integers."""
    u64, mask = np.uint64, np.uint64(2**32 - 1)

    def stream(start: np.ndarray, index: np.ndarray) -> np.ndarray:
        z = start + (index + u64(1)) * u64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> u64(27))) * u64(0x94D049BB133111EB)
        return z ^ (z >> u64(31))

    def murmur(x: np.ndarray) -> np.ndarray:
        x = ((x ^ (x >> u64(16))) * u64(0x85EBCA6B)) & mask
        x = ((x ^ (x >> u64(13))) * u64(0xC2B2AE35)) & mask
        return x ^ (x >> u64(16))

    base = stream(np.array([seed % 2**64], u64), np.array([4], u64))
    key = stream(base, np.arange(rows, dtype=u64))[:, None]
    word = murmur((murmur(np.arange(columns, dtype=u64) ^ (key >> u64(32))) + (key & mask)) & mask)
    uniform = ((word >> u64(9)).astype(np.float64) + 0.5) / 2**23
    return np.sqrt(2) * erfinv(2 * uniform - 1)


@dataclass(frozen=True)
class Inputs:
    hidden: np.ndarray
    table: np.ndarray
    target: np.ndarray
    bias: np.ndarray | None
    weight: np.ndarray | None
    upstream: np.ndarray  # of the loss where the reduction is none


@functools.cache
def make_inputs(case: Case, dtype: torch.dtype = torch.float32) -> Inputs:
    """The same arrays for the same name; float32 values that ``dtype`` represents exactly."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    n, v, d = case.num_rows, case.num_items, case.dim

    def rounded(*shape: int) -> np.ndarray:
        return torch.tensor(rng.standard_normal(shape)).to(dtype).float().numpy()

    target = rng.integers(0, v, n)
    target[target == case.ignore_index] += 1
    target[rng.permutation(n)[: case.ignored]] = case.ignore_index
    hidden = rounded(n, d)
    if case.rubbish:
        hidden[target == case.ignore_index] = case.rubbish
    return Inputs(
        hidden=hidden,
        table=(rounded(v, d) / 2).astype(np.float32),
        target=target,
        bias=rounded(v) if case.has_bias else None,
        weight=rng.uniform(0.1, 2, n).astype(np.float32) if case.weighted else None,
        upstream=rng.standard_normal(n).astype(np.float32),
    )


def centres(case: Case, inputs: Inputs) -> np.ndarray:
    counted = (inputs.target != case.ignore_index)[:, None]
    if not case.mix_x:
        return normals(SEED, case.n_buckets, case.dim) * case.dim**-0.25
    omega = normals(SEED, case.num_rows, case.n_buckets) * case.dim**-0.25
    return omega.T @ np.where(counted, inputs.hidden, 0).astype(np.float64)


@functools.cache
def choose(case: Case) -> Chosen:
    """Buckets by float64 projections, which must be clear enough for fp32 to make the same ones."""
    inputs = make_inputs(case)
    b = centres(case, inputs)
    scores = b @ inputs.hidden.T.astype(np.float64)  # of ignored rows anything
    scores[:, inputs.target == case.ignore_index] = -np.inf
    chosen = []
    for values, size in ((scores, case.bucket_size_x), (b @ inputs.table.T.astype(np.float64), case.bucket_size_y)):
        size = min(size, values.shape[1])
        order = np.argsort(-values, 1, kind="stable")
        chosen.append(np.sort(order[:, :size], 1))
        if size < values.shape[1] and case.ignored < case.num_rows:  # else no bucket matters
            last, following = (np.take_along_axis(values, order[:, [place]], 1) for place in (size - 1, size))
            clear = np.isinf(following) | (last > following + 1e-5 * np.abs(b).max())
            if not clear.all():
                raise UnclearChoice("take another name, which gives other inputs")
    return chosen[0], chosen[1]


def formulas(
    case: Case, chosen: Chosen, dtype: torch.dtype = torch.float32, mistake: Mistake | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Loss and gradients on given buckets of inputs that ``dtype`` represents: the truth in float64, and a plain
    implementation's in ``dtype`` with sums in fp32."""
    inputs = make_inputs(case, dtype)
    truth, plain = (formulas_of(inputs, case, chosen, each, mistake) for each in (torch.float64, dtype))
    return truth, plain


def formulas_of(
    inputs: Inputs, case: Case, chosen: Chosen, dtype: torch.dtype, mistake: Mistake | None = None
) -> dict[str, np.ndarray]:
    work = torch.float64 if dtype == torch.float64 else torch.float32

    def leaf(array: np.ndarray) -> Tensor:
        return torch.tensor(array).to(dtype).requires_grad_()

    e, c = leaf(inputs.hidden), leaf(inputs.table)
    bias = leaf(np.zeros(case.num_items) if inputs.bias is None else inputs.bias)
    scale = torch.tensor(case.logit_scale, dtype=work, requires_grad=True)
    weight = torch.tensor(
        np.ones(case.num_rows) if inputs.weight is None else inputs.weight, dtype=work, requires_grad=True
    )
    target = torch.tensor(inputs.target)
    counted = target != case.ignore_index
    losses, places, scores = [], [], []
    for rows, items in zip(*map(torch.tensor, chosen), strict=True):
        if mistake != "ignored rows in buckets":
            rows = rows[counted[rows]]
        positives = target[rows].clamp(min=0)
        x = scale * (e[rows].to(work) @ c.to(work).T) + bias.to(work)
        s = x if case.softcap is None else case.softcap * torch.tanh(x / case.softcap)
        of_items, of_target = s[:, items], s.gather(1, positives[:, None])
        if mistake != "hits kept":
            of_items = of_items.masked_fill(items[None] == positives[:, None], -torch.inf)
        losses.append(torch.cat([of_target, of_items], 1).logsumexp(1) - of_target[:, 0])
        places.append(rows)
        scores.append(x)
    flat, rows = torch.cat(losses), torch.cat(places)
    kind = "amin" if mistake == "smallest bucket" else "amax"
    loss = torch.zeros(case.num_rows, dtype=work).scatter_reduce(0, rows, flat, kind, include_self=False)
    in_bucket = torch.zeros(case.num_rows, dtype=torch.bool).index_fill(0, rows, True)
    weighed = loss * weight
    result = weighed if case.reduction == "none" else weighed.sum()
    weight_terms = torch.zeros_like(loss)
    if case.reduction == "mean":
        mass = (weight * (counted if mistake == "mean over all rows" else in_bucket)).sum()
        if mass > 0:  # a mean's gradients of weights are differences of losses, which may be all but equal
            result = result / mass
            weight_terms = (loss.abs() + result.abs()) / mass
    upstream = torch.tensor(inputs.upstream, dtype=work)
    total = (result * upstream).sum() if case.reduction == "none" else result
    total = total + 0 * sum(each.sum() for each in (e, c, bias, scale, weight, *scores))
    grads = torch.autograd.grad(total, (e, c, bias, scale, weight, *scores))
    values = (result, *grads[:5])
    found = {name: value.detach().double().numpy() for name, value in zip(NAMES, values, strict=True)}
    # how large the terms are of sums that may cancel, as in tests.oracle
    terms: dict[str, Any] = {"dscale": 0.0, "dsample_weight": weight_terms.detach().double().numpy()}
    squares = np.zeros(inputs.hidden.shape), np.zeros(inputs.table.shape), np.zeros(case.num_items)
    table = inputs.table.astype(np.float64)
    for rows, of_scores in zip(places, grads[5:], strict=True):
        square = of_scores.double().numpy() ** 2
        hidden = np.where(counted[rows][:, None], inputs.hidden[rows], 0).astype(np.float64)
        np.add.at(squares[0], rows.numpy(), square @ table**2)
        squares[1][:] += square.T @ hidden**2
        squares[2][:] += square.sum(0)
        terms["dscale"] += np.sqrt((square * (hidden @ table.T) ** 2).sum(1)).sum()
    sizes = abs(case.logit_scale), abs(case.logit_scale), 1.0
    for name, square, size in zip(("dinput", "dweight", "dbias"), squares, sizes, strict=True):
        terms[name] = size * np.sqrt(square)
    return found | {f"terms of {name}": each for name, each in terms.items()}


def assert_right(
    result: dict[str, np.ndarray], truth: dict[str, np.ndarray], plain: dict[str, np.ndarray], dtype: torch.dtype,
    logits: Logits | None = None,
) -> float:  # fmt: skip
    """The largest share of what is allowed that an error takes; ``logits`` as in ``expected.assert_right``."""
    shares = []
    for name, got in result.items():
        stored = dtype if name in ("dinput", "dweight", "dbias") else torch.float32
        size = 0.0 if logits is None else logits.scores if name in ("loss", "dsample_weight") else sum(logits)
        least = 0.0 if logits is None else max(FLOOR[stored], 2.0**-23 * size)
        terms = truth.get(f"terms of {name}", 0.0)
        shares.append(assert_close(name, got, truth[name], plain[name], stored, terms=terms, least=least))
    return max(shares)
