"""The named cases of a catalog in shards, what the oracle is given of the shards' draws, and which rows are whose."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from cce_minus.kernels import AllItems, fold_seed, shard_user_items
from cce_minus.kernels.draws.shard import Shard

from tests.cases import EVERYTHING
from tests.inputs import Case, Inputs, make_inputs, options
from tests.loss.samplers import SEED, negatives_of, oracle_negatives
from tests.oracle import EMPTY_SLOT, OracleResult, oracle, reduce_oracle, upstream
from tests.plain import plain
from tests.tolerance import assert_close, assert_result_close

SHARDS = 2, 4


def _case(name: str, reason: str, n: int, v: int, k: int = 0, **fields: Any) -> Case:
    mode = "all" if k == 0 and "sampler" not in fields else "grouped"
    fields = {"dim": 24, "group_size": 16 if mode == "grouped" else 1} | fields
    return Case(f"sharded-{name}", reason, fields.pop("mode", mode), n, v, num_negatives=k, **fields)


# fmt: off
CASES = (
    _case("all", "every item; V a multiple of no number of shards", 32, 71),
    _case("all_options", "bias, softcap, scale, ignored rows, weighted mean of each rank's rows", 40, 63, weighted=True,
          ignored="some", reduction="mean", **EVERYTHING),
    _case("all_hits_kept", "the popular target also a negative", 32, 30, targets="popular",
          remove_accidental_hits=False),
    _case("all_ignored", "no row left", 32, 30, ignored="all", reduction="mean"),
    _case("one_target", "shards without a target", 32, 41, targets="popular", has_bias=True),
    _case("few_items", "an item a shard, in some one more", 32, 5),
    _case("confident", "1 - p_target of about 1e-6", 32, 120, logits="confident"),
    _case("extreme", "logits of +-1e4", 32, 80, logits="extreme"),
    _case("gone", "a third of the items masked out, targets among them", 32, 40, has_bias=True, biases="gone"),
    _case("all_gone", "but one item, of one shard", 32, 40, has_bias=True, biases="all_gone"),
    _case("uniform", "groups of 16 in several rounds; draws of unequal shares", 72, 203, 42),
    _case("uniform_options", "every option, ignored rows", 72, 203, 90, ignored="some", **EVERYTHING),
    _case("uniform_slots", "two slots a shard", 40, 801, 270, weighted=True, reduction="sum"),
    _case("uniform_no_shuffle", "only lse has a gradient (z-loss)", 40, 150, 64, shuffle_rows=False, upstream="lse"),
    _case("uniform_loss_only", "only the loss has a gradient; hits kept", 40, 30, 16, upstream="loss",
          remove_accidental_hits=False),
    _case("uniform_every_item", "K = V is every item of every shard", 32, 61, 61),
    _case("uniform_one_each", "a draw a shard, which may be the target: m_r = 0", 40, 9, 4, ignored="some"),
    _case("uniform_uncorrected", "without correction", 40, 90, 30, logq_correction=False),
    _case("independent", "rows with draws of their own, a membership mask in some shards", 24, 90, 44, group_size=1),
    _case("popularity", "counts; items several times in a list; ignored rows", 72, 101, 64, sampler="popularity",
          ignored="some", has_bias=True),
    _case("log_uniform", "by the items' own numbers, whatever shard has them", 40, 97, 50, sampler="log_uniform",
          softcap=2.0),
    _case("in_batch", "the group's targets that a shard has", 72, 40, sampler="in_batch", knows_q=True, ignored="some"),
    _case("in_batch_uncorrected", "without correction", 40, 40, sampler="in_batch", logq_correction=False),
    _case("in_batch_all", "all rows' targets", 40, 40, sampler="in_batch_all", knows_q=True, ignored="some"),
    _case("mixed", "uniform and in-batch; every option", 72, 101, 40, sampler="mixed", knows_q=True, ignored="some",
          **EVERYTHING),
    _case("mixed_weighted", "popularity and log-uniform", 40, 97, 24, sampler="mixed_weighted"),
    _case("history", "own items are no negatives and leave the masses", 40, 150, 60, has_history=True, ignored="some"),
    _case("history_all", "the same of every item", 32, 60, has_history=True, has_bias=True),
    _case("history_popularity", "the same by weights", 40, 97, 40, has_history=True, sampler="popularity"),
    _case("history_mixed", "the same of uniform and in-batch negatives", 40, 97, 40, has_history=True, sampler="mixed",
          knows_q=True),
    # of catalogs of which a step draws less than half: on working sets, too
    _case("rows_uniform", "every option, ignored rows", 40, 1204, 64, ignored="some", **EVERYTHING),
    _case("rows_popularity", "items several times in a list", 40, 800, 60, sampler="popularity"),
    _case("rows_in_batch", "nothing is drawn by groups", 40, 304, sampler="in_batch", knows_q=True),
    _case("rows_in_batch_all", "nothing is drawn; shards of unequal sizes", 40, 301, sampler="in_batch_all",
          knows_q=True, ignored="some"),
    _case("rows_mixed", "uniform and in-batch, bias", 40, 800, 40, sampler="mixed", knows_q=True, has_bias=True),
    _case("rows_history", "the masses of a catalog's items", 40, 800, 60, has_history=True, sampler="popularity"),
)
# fmt: on
INTERPRETED_NAMES = (
    "all_options",
    "few_items",
    "all_gone",
    "uniform_options",
    "uniform_one_each",
    "independent",
    "popularity",
    "in_batch_all",
    "mixed",
    "history",
    "history_popularity",
    "rows_uniform",
    "rows_mixed",
)  # fmt: skip
INTERPRETED = tuple(case for case in CASES if case.name.removeprefix("sharded-") in INTERPRETED_NAMES)
"""Those that the kernels run in the interpreter: each kernel and option, targets here and elsewhere."""
HALVES = tuple(case for case in CASES if case.name in ("sharded-uniform_options", "sharded-mixed"))
"""Those that are run in bfloat16, too."""
ON_ROWS = tuple(case for case in CASES if case.name.startswith("sharded-rows"))
"""Those that are run on working sets, too."""
REPEATED = tuple(case for case in CASES if case.name.endswith(("options", "mixed")))
"""Those that are run twice, for the same bits."""
RAGGED = ("all_options", "uniform_options", "mixed", "history", "rows_uniform")
"""Cases whose ranks have unequal numbers of rows, the second one none."""


@dataclass(frozen=True)
class Expected:
    inputs: Inputs
    truth: OracleResult
    yardstick: OracleResult


def rows_of(case: Case, num_shards: int) -> list[slice]:
    """The rows of each rank."""
    each, ragged = case.num_rows // num_shards, case.name.removeprefix("sharded-") in RAGGED
    ends = [each * (rank + 1) for rank in range(num_shards)]
    if ragged:
        ends = [each + 1, each + 1, *ends[2:]]
        ends[-1] = case.num_rows
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def max_rows(case: Case, num_shards: int) -> int | None:
    """The catalog's ``max_rows``, where ranks have unequal numbers of rows."""
    sizes = {rows.stop - rows.start for rows in rows_of(case, num_shards)}
    return None if len(sizes) == 1 else max(sizes) + 3


def shard_history(inputs: Inputs, shard: Shard) -> tuple[np.ndarray, np.ndarray] | None:
    """The offsets and items of a case's history in a shard."""
    if inputs.history is None:
        return None
    _, offsets, items = inputs.history
    return shard_user_items(offsets, items, num_shards=shard.num_shards, shard=shard.index)


@functools.cache
def expected(case: Case, num_shards: int, dtype: torch.dtype = torch.float32) -> Expected:
    """The truth and the yardstick of the sum of all ranks' losses, on inputs rounded to ``dtype``."""
    inputs = make_inputs(case, dtype=dtype)
    ids, weights = zip(
        *(_of_shard(case, inputs, Shard(case.num_items, num_shards, r)) for r in range(num_shards)), strict=True
    )
    keywords = options(case, inputs) | {"logq_correction": False, "log_q": None}
    keywords["draw_weight"] = interleaved(weights) if case.logq_correction else 1.0
    keywords["grad_loss"] = np.concatenate(
        [_upstream(case, inputs, np.zeros(case.num_rows), rows)[0] for rows in rows_of(case, num_shards)]
    )
    arguments = inputs.hidden, inputs.table, inputs.target, np.concatenate(ids, 1)
    yardstick = plain(*arguments, dtype=dtype, **keywords)
    return Expected(inputs, oracle(*arguments, **keywords), yardstick)


def _upstream(case: Case, inputs: Inputs, loss: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of a rank's reduced loss with respect to its rows' and to its weights."""
    weight = None if inputs.sample_weight is None else inputs.sample_weight[rows]
    output = inputs.grad_loss[rows] if case.reduction == "none" else 1.0
    return upstream(loss[rows], inputs.target[rows], weight, case.reduction, case.ignore_index, grad_output=output)


def assert_right(
    got: dict[str, np.ndarray], losses: list[np.ndarray], case: Case, dtype: torch.dtype = torch.float32
) -> None:
    """Every part of a run within tolerance of the oracle: arrays of all rows and items, and each rank's loss."""
    want, parts = expected(case, len(losses), dtype), rows_of(case, len(losses))
    inputs, truth, yardstick = want.inputs, want.truth, want.yardstick
    for name in ("lse", "dhidden", "dtable", "dscale", *(["dbias"] if case.has_bias else [])):
        assert_result_close(name, got[name], truth, yardstick, dtype)
    for rows, loss in zip(parts, losses, strict=True):
        weight = None if inputs.sample_weight is None else inputs.sample_weight[rows]
        reduced = [
            reduce_oracle(each.loss[rows], inputs.target[rows], weight, case.reduction, case.ignore_index)
            for each in (truth, yardstick)
        ]
        assert_close("loss", loss, reduced[0], reduced[1], torch.float32)
    if inputs.sample_weight is not None:
        of_weights = [
            np.concatenate([_upstream(case, inputs, each.loss, rows)[1] for rows in parts])
            for each in (truth, yardstick)
        ]
        assert_close("dweight", got["dweight"], of_weights[0], of_weights[1], torch.float32)


def interleaved(of_shards: Sequence[np.ndarray], axis: int = -1) -> np.ndarray:
    """Arrays of all items from each shard's, along an axis."""
    moved = [np.moveaxis(part, axis, 0) for part in of_shards]
    whole = np.empty((sum(map(len, moved)), *moved[0].shape[1:]))
    for index, part in enumerate(moved):
        whole[index :: len(moved)] = part
    return np.moveaxis(whole, 0, axis)


def _of_shard(case: Case, inputs: Inputs, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """The items (N, K_r) that a shard draws for each row, -1 where there is none, and how many items a draw of each of
    its items (N, V_r) stands for."""
    ignored = inputs.target == case.ignore_index
    owned = ~ignored & (inputs.target % shard.num_shards == shard.index)
    place = np.where(ignored, case.ignore_index, np.where(owned, inputs.target // shard.num_shards, -1))
    of_items = slice(shard.index, None, shard.num_shards)
    own = replace(
        inputs,
        target=place,
        log_q=None if inputs.log_q is None else inputs.log_q[of_items],
        excluded=None if inputs.excluded is None else inputs.excluded[:, of_items],
    )
    whole: Any = negatives_of(case, inputs)
    sampler = whole.of_shard(shard)
    own_case = replace(case, num_items=shard.size, num_negatives=shard.share(case.num_negatives))
    ids, known = oracle_negatives(own_case, own, sampler, fold_seed(SEED, shard.index))
    if ids is None or isinstance(sampler, AllItems):
        ids = np.tile(np.arange(shard.size), (case.num_rows, 1))
    ids = np.where(ignored[:, None], EMPTY_SLOT, ids)
    log_q = known.get("log_q", own.log_q)
    q = np.ones(shard.size) if log_q is None else np.exp(np.asarray(log_q, np.float64))
    q = q / q.sum()
    excluded = np.zeros((case.num_rows, shard.size), bool) if own.excluded is None else own.excluded
    is_target = place[:, None] == np.arange(shard.size)
    left = np.where(excluded | is_target, 0.0, q).sum(1)
    rows = np.arange(case.num_rows)[:, None]
    kept = (ids >= 0) & ~excluded[rows, ids]
    if case.remove_accidental_hits:
        kept &= ~is_target[rows, ids]
    with np.errstate(divide="ignore"):
        weight = left[:, None] / np.maximum(kept.sum(1), 1)[:, None] / q
    return np.where(ids >= 0, shard.items(ids), EMPTY_SLOT), weight
