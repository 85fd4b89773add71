"""The named cases on which every implementation is compared with the oracle, and their inputs."""

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
    ignored: Literal["none", "some", "all"] = "none"
    ignore_index: int = -100
    targets: Literal["uniform", "popular"] = "uniform"
    ids: Literal["uniform", "repeated", "empty_slots", "target", "popular"] = "uniform"
    logits: Literal["plain", "extreme", "confident"] = "plain"
    contiguous: bool = True
    weighted: bool = False
    reduction: Literal["none", "mean", "sum"] = "none"
    upstream: Literal["both", "loss", "lse"] = "both"
    positive_weight: float | None = None  # binary cross-entropy with this weight of the positive's term
    gbce_t: float | None = None
    sampler: Literal["uniform", "popularity", "log_uniform"] = "uniform"  # of grouped rows
    knows_q: bool = False  # explicit ids come with the log of their items' draw probabilities
    logq_correction: bool = True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Inputs:
    """Arrays of a case; grad_loss is the gradient of the loss when the reduction is none."""

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
    elif case.ignored == "some":
        target[rng.permutation(n)[: max(1, n // 3)]] = case.ignore_index

    if case.logits == "extreme":
        # Entries on a coarse grid: every logit is exact in float32 in any order of summation, so a comparison
        # sees overflow and bad shifts, not the luck of one rounding at a logit of 1e4.
        table = np.round(table * 16) / 16
        hidden = np.round(hidden * 1e4 / np.abs(hidden @ table.T).max())
    elif case.logits == "confident":
        # A target logit of 24 among negatives with a deviation of 3: 1 - p_target is about 1e-6.
        direction = table[target] / np.linalg.norm(table[target], axis=1, keepdims=True)
        hidden = 24 * direction / np.linalg.norm(table[target], axis=1, keepdims=True)

    u, w = rng.standard_normal((2, n))
    weight = rng.uniform(0, 2, n) * (rng.random(n) > 0.2)
    hidden, table = _rounded(hidden, dtype), _rounded(table, dtype)
    counts = np.floor(50 / (1 + rng.permutation(v))).astype(np.int64) + (case.knows_q or v < 3)
    if not case.contiguous:
        hidden = np.repeat(hidden, 2, axis=1)[:, ::2]
        table = np.asfortranarray(table)
    return Inputs(
        hidden=hidden,
        table=table,
        bias=_rounded(rng.standard_normal(v), dtype) if case.has_bias else None,
        target=target,
        sample_weight=weight.astype(np.float32) if case.weighted else None,
        ids=_explicit_ids(case, target, rng),
        grad_loss=(u * (case.upstream != "lse")).astype(np.float32),
        grad_lse=(w * (case.upstream != "loss")).astype(np.float32),
        counts=counts,
        log_q=np.log(counts / counts.sum()).astype(np.float32) if case.knows_q else None,
    )


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
    }


def spread_over_rows(drawn: NDArray[np.integer], target: Int64, ignore_index: int) -> Int64:
    """A sampler's ids (non-ignored rows, K) as (N, K), ignored rows with empty slots."""
    active = target != ignore_index
    if len(drawn) != active.sum():
        raise ValueError(f"drawn: expected one row for each of {active.sum()} non-ignored rows, got {len(drawn)}")
    ids = np.full((len(target), drawn.shape[1]), EMPTY_SLOT, np.int64)
    ids[active] = drawn
    return ids


def _case(mode: Mode, name: str, reason: str, n: int, v: int, k: int = 0, **fields: Any) -> Case:
    if mode == "grouped":
        fields.setdefault("group_size", 16)
    return Case(f"{mode}-{name}", reason, mode, n, v, num_negatives=k, **fields)


def _binary(mode: Mode, name: str, reason: str, n: int, v: int, k: int, **fields: Any) -> Case:
    return _case(mode, name, reason, n, v, k, **({"positive_weight": 1.0, "upstream": "loss"} | fields))


EVERYTHING: dict[str, Any] = {"has_bias": True, "softcap": 2.0, "logit_scale": 1.7}

# One argument a line would hide the list.
# fmt: off
CASES: tuple[Case, ...] = (
    # grouped: S = ceil(K/64) slots of L = ceil(K/S) items, NB = floor(V/L) blocks, floor(NB/S) groups a round
    _case("grouped", "ragged", "last group cut, two rounds, V not a multiple of L", 77, 301, 64),
    _case("grouped", "small_group", "fewer rows than one group", 5, 97, 32),
    _case("grouped", "one_row", "N = 1", 1, 97, 20),
    _case("grouped", "cut_block", "K not a multiple of 64: two slots, the last cut", 40, 333, 65, dim=50),
    _case("grouped", "one_negative", "K = 1: blocks of one item, as many as items", 40, 97, 1),
    _case("grouped", "every_item", "K = V: full catalog, no permutation", 40, 70, 70),
    _case("grouped", "beyond_catalog", "K > V is K = V; logits scaled", 20, 70, 100, logit_scale=0.5),
    _case("grouped", "all_but_one", "K = V - 1: one item sits out, one group a round", 40, 91, 90),
    _case("grouped", "few_blocks", "NB = 2 < S = 3: every group takes the first K positions", 40, 131, 130),
    _case("grouped", "many_rounds", "13 groups, two blocks: 7 rounds", 200, 150, 64),
    _case("grouped", "group_128", "the default group, two groups", 140, 200, 100, group_size=128, dim=128),
    _case("grouped", "group_256", "the largest group; weighted mean", 270, 200, 70, group_size=256,
          weighted=True, reduction="mean"),
    _case("grouped", "dim_100", "D no power of two; bias, softcap, scale", 50, 210, 70, dim=100,
          **EVERYTHING),
    _case("grouped", "dim_320", "D above one chunk, no power of two", 20, 80, 40, dim=320),
    _case("grouped", "no_shuffle", "rows in their own order; only the loss has a gradient", 50, 150, 64,
          shuffle_rows=False, upstream="loss"),
    _case("grouped", "all_ignored", "no row left: zeros, no NaN, the mean of nothing", 20, 97, 32,
          ignored="all", reduction="mean"),
    _case("grouped", "ignore_item", "ignore_index is a valid item, which still is a negative; bias", 90,
          40, 16,
          ignored="some", ignore_index=0, has_bias=True),
    _case("grouped", "popular", "one item is the target of most rows", 150, 150, 64, targets="popular"),
    _case("grouped", "dim_320_popular", "one wide chunk in half precision; popular targets, by chunks and alone", 150, 90, 40, dim=320,
          group_size=128, targets="popular"),
    _case("grouped", "hits_kept", "accidental hits stay in the denominator", 60, 60, 40,
          remove_accidental_hits=False),
    _case("grouped", "lse_only", "only lse has a gradient (z-loss); non-contiguous inputs, softcap", 40,
          150, 64,
          upstream="lse", contiguous=False, softcap=3.0),
    _case("grouped", "extreme", "logits of +-1e4", 40, 150, 64, logits="extreme"),
    _case("grouped", "confident", "1 - p_target of about 1e-6", 40, 300, 100, logits="confident"),
    # independent: up to K = 64, or with V < 8 K, one stratum with F = floor(V/K) rows a round
    _case("independent", "ragged", "many rounds, the last not full, V not a multiple of K", 40, 111, 20),
    _case("independent", "one_negative", "K = 1: V rows a round; bias, scale", 120, 97, 1, has_bias=True,
          logit_scale=1.7),
    _case("independent", "every_item", "K = V: full catalog; softcap", 40, 70, 70, softcap=2.0),
    _case("independent", "beyond_catalog", "K > V is K = V; hits kept", 20, 70, 100,
          remove_accidental_hits=False),
    _case("independent", "membership", "K > V/2: a membership mask; every option, ignored rows",
          50, 100, 60, ignored="some", **EVERYTHING),
    _case("independent", "all_but_one", "K = V - 1 under the membership mask", 30, 66, 65),
    _case("independent", "strata", "two strata of 300 positions of 601, 35 a row of each; bias, ignored rows",
          24, 601, 70, ignored="some", has_bias=True),
    _case("independent", "strata_popular", "two strata; a popular target that is drawn too, every option",
          40, 560, 70, dim=32, targets="popular", **EVERYTHING),
    _case("independent", "half", "K = V/2: the largest K without a mask", 30, 130, 65, dim=50),
    _case("independent", "dim_256", "D = 256, ignored rows", 20, 80, 16, dim=256, ignored="some"),
    _case("independent", "popular", "one popular target, ignored rows, weighted sum", 60, 60, 16,
          targets="popular", ignored="some", weighted=True, reduction="sum"),
    _case("independent", "lse_only", "only lse has a gradient; N = 1, D = 100, non-contiguous", 1, 97, 16,
          dim=100, upstream="lse", contiguous=False),
    _case("independent", "extreme_softcap", "logits of +-1e4 under a softcap of 30: tanh saturates", 40,
          150, 32,
          logits="extreme", softcap=30.0),
    # all: every item is a candidate
    _case("all", "ragged", "N and V multiples of nothing, D = 50", 77, 301, dim=50),
    _case("all", "one_item", "V = 1: no negative is left, m = 0", 5, 1),
    _case("all", "one_item_kept", "V = 1 with its hit kept: log(0 / 1)", 5, 1, remove_accidental_hits=False),
    _case("all", "two_items", "V = 2, N = 1", 1, 2),
    _case("all", "options", "bias, softcap, scale, ignored rows, weighted mean", 50, 210, dim=100,
          ignored="some", weighted=True, reduction="mean", **EVERYTHING),
    _case("all", "hits_kept", "the popular target also a negative; D = 128", 40, 130, dim=128,
          targets="popular", remove_accidental_hits=False),
    _case("all", "extreme", "logits of +-1e4; only lse has a gradient, non-contiguous", 40, 150,
          logits="extreme", upstream="lse", contiguous=False),
    # explicit ids: one list for all rows (K,), or a list a row (N, K)
    _case("shared_ids", "ragged", "K no multiple of 64, N of no tile", 77, 301, 130),
    _case("shared_ids", "one_negative", "K = 1, which is most rows' target: m = 0 there", 40, 97, 1,
          targets="popular", ids="popular"),
    _case("shared_ids", "repeated", "an id that occurs twice is two draws; ignored rows, weighted mean",
          50, 97,
          40, ids="repeated", ignored="some", weighted=True, reduction="mean"),
    _case("shared_ids", "empty_slots", "-1 among the ids; bias, softcap, scale", 50, 97, 40, dim=100,
          ids="empty_slots", **EVERYTHING),
    _case("shared_ids", "hits_kept", "repeated ids that are targets too, kept", 50, 10, 40, ids="repeated",
          remove_accidental_hits=False),
    _case("row_ids", "ragged", "K no multiple of 64, D = 50, non-contiguous", 77, 301, 33, dim=50,
          contiguous=False),
    _case("row_ids", "all_hits", "every draw is a hit: m = 0, only lse has a gradient", 30, 97, 16,
          ids="target"),
    _case("row_ids", "all_hits_kept", "every draw is a hit and stays", 30, 97, 16, ids="target",
          remove_accidental_hits=False),
    _case("row_ids", "popular", "one target of over 128 rows: a chunk of its positives is summed beforehand; bias",
          200, 12, 2, targets="popular", has_bias=True),
    _case("row_ids", "repeated", "few items with long lists of rows; popular target, D = 128", 100, 301, 40,
          dim=128, ids="repeated", targets="popular"),
    _case("row_ids", "empty_slots", "-1 among the ids, one row only of them; every option, ignored rows",
          50, 97,
          20, ids="empty_slots", ignored="some", weighted=True, reduction="sum", **EVERYTHING),
    # draws with unequal probabilities: lists of slots, an item several times in a list or in many
    _case("grouped", "popularity", "counts of 0 to 50, two groups: items in both lists and several times in one; D = 50", 40, 301, 64,
          dim=50, sampler="popularity"),
    _case("grouped", "popularity_options", "three blocks of 50 with two strata each; every option, popular targets, ignored rows",
          100, 97, 150, group_size=32, sampler="popularity", targets="popular", ignored="some", weighted=True, reduction="mean",
          **EVERYTHING),
    _case("grouped", "popularity_few_items", "9 items, K = 130 and 5 groups: chunks of one item are summed beforehand; hits kept",
          75, 9, 130, sampler="popularity", remove_accidental_hits=False, has_bias=True),
    _case("grouped", "popularity_split", "few rows: their lists are split; D above a chunk, no shuffle", 7, 700, 320, dim=272,
          sampler="popularity", shuffle_rows=False),
    _case("grouped", "popularity_one_negative", "K = 1; only the lse has a gradient", 40, 97, 1, sampler="popularity", upstream="lse"),
    _case("grouped", "log_uniform", "two strata, the first item 15% of the draws; softcap, ignored rows", 50, 97, 128,
          group_size=32, sampler="log_uniform", ignored="some", softcap=2.0),
    _case("grouped", "log_uniform_extreme", "logits of +-1e4", 40, 150, 64, sampler="log_uniform", logits="extreme"),
    _case("grouped", "log_uniform_uncorrected", "without its correction; D = 128", 130, 200, 100, group_size=128, dim=128,
          sampler="log_uniform", logq_correction=False),
    _case("grouped", "uniform_uncorrected", "uniform draws without correction, as other libraries' sampled softmax", 50, 210, 70,
          logq_correction=False),
    _case("shared_ids", "log_q", "known draw probabilities; repeated ids and hits, weighted mean", 50, 97, 40, ids="repeated",
          knows_q=True, weighted=True, reduction="mean"),
    _case("row_ids", "log_q", "known draw probabilities, empty slots; every option, ignored rows", 50, 97, 20, knows_q=True,
          ids="empty_slots", ignored="some", **EVERYTHING),
    # binary cross-entropy: one sigmoid a draw, a mean over the positive and the kept draws
    _binary("grouped", "bce_plus", "BCE+ with K no multiple of 64; bias, softcap, scale, ignored rows, weighted mean", 50, 333, 65,
            dim=50, ignored="some", weighted=True, reduction="mean", **EVERYTHING),
    _binary("grouped", "gbce", "gBCE, t = 0.75: alpha = 64 / 300; two groups, popular targets that are drawn too", 140, 301, 64,
            group_size=128, dim=128, targets="popular", positive_weight=1 - 0.75 * (1 - 64 / 300), gbce_t=0.75),
    _binary("grouped", "bce_split", "few rows: partial sums of split rows", 5, 700, 400),
    _binary("grouped", "bce_confident", "a target's term of 1e-10 beside negatives'", 40, 300, 100, logits="confident"),
    _binary("grouped", "bce_extreme", "logits of +-1e4: no overflow, whole steps of the sigmoid", 40, 150, 64, logits="extreme"),
    _binary("grouped", "bce_popularity", "lists, weighted sum", 50, 97, 70, group_size=32, sampler="popularity", weighted=True,
            reduction="sum", has_bias=True),
    _binary("grouped", "bce_log_uniform", "lists, one group of 128", 60, 150, 100, group_size=128, sampler="log_uniform", dim=100),
    _binary("independent", "bce", "SASRec's BCE: one negative; bias, scale", 120, 97, 1, has_bias=True, logit_scale=1.7),
    _binary("independent", "gbce_strata", "two strata; every option, a popular target", 40, 560, 70, dim=32, targets="popular",
            positive_weight=1 - 0.5 * (1 - 70 / 559), gbce_t=0.5, **EVERYTHING),
    _binary("independent", "bce_membership", "K > V/2: a membership mask", 50, 100, 60, ignored="some"),
    _binary("independent", "bce_every_item", "K = V: every item but the target, beta = 1 whatever t", 40, 70, 70, gbce_t=0.5),
    _binary("shared_ids", "bce", "repeated ids and hits, which are dropped", 50, 97, 40, ids="repeated", has_bias=True),
    _binary("row_ids", "bce_empty_slots", "-1 among the ids, one row only of them: the positive's term alone", 50, 97, 20,
            ids="empty_slots", ignored="some", weighted=True, reduction="sum", **EVERYTHING),
)
# fmt: on


def cases(*modes: Mode) -> list[Case]:
    """The cases of these modes, or all of them."""
    return [case for case in CASES if not modes or case.mode in modes]
