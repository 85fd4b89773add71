"""The samplers of cases, and what the oracle is given in their place: ids of each row, and how likely or heavy they
are."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from cce_minus.kernels import (
    AllItems,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    negative_ids,
)
from cce_minus.kernels.draws import permutation as pm
from cce_minus.kernels.draws.slots import items_of_slots
from cce_minus.kernels.draws.uniform import row_places
from cce_minus.kernels.negatives.drawn_ids import drawn_lists
from cce_minus.kernels.negatives.samplers import Sampler

from tests.inputs import Case, Inputs, make_inputs, spread_over_rows
from tests.oracle import EMPTY_SLOT

SEED = 2**63 + 12345  # both words in use, and negative as an int64


class UnclearChoice(AssertionError):
    """Scores too close for fp32 to choose what float64 does: take other inputs."""


@functools.cache
def _sampler(case: Case) -> Sampler:
    """One object a case: samplers with counts are compared by identity."""
    groups: dict[str, Any] = {"group_size": case.group_size, "shuffle_rows": case.shuffle_rows}
    draw: dict[str, Any] = {"num_negatives": case.num_negatives, **groups}
    if case.sampler == "popularity":
        return PopularityNegatives(make_inputs(case).counts, **draw)
    if case.sampler == "log_uniform":
        return LogUniformNegatives(**draw)
    if case.sampler == "in_batch":
        return InBatchNegatives(**groups)
    if case.sampler == "in_batch_all":
        return InBatchNegatives(None)
    if case.sampler == "mixed":
        return MixedNegatives(UniformNegatives(**draw), InBatchNegatives(**groups))
    if case.sampler == "mixed_weighted":
        return MixedNegatives(PopularityNegatives(make_inputs(case).counts, **draw), LogUniformNegatives(**draw))
    if case.sampler == "hard":
        return HardNegatives(case.pool, **draw)
    assert case.sampler == "uniform", case.sampler
    return UniformNegatives(case.num_negatives, case.group_size if case.mode == "grouped" else 1, case.shuffle_rows)


def negatives_of(case: Case, inputs: Inputs) -> Sampler | np.ndarray:
    """What the public API is given as its negatives."""
    if inputs.ids is not None:
        return inputs.ids
    return AllItems() if case.mode == "all" else _sampler(case)


def oracle_negatives(
    case: Case,
    inputs: Inputs,
    negatives: Sampler | np.ndarray | None = None,
    seed: int = SEED,
    must_be_clear: bool = False,
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """(ids (N, K) or None for every item, the oracle's keywords that go with them).

    ``negatives`` in place of the case's own; the groups of a sampler are the case's. ``must_be_clear`` raises
    UnclearChoice where hard negatives hang on rounding.
    """
    negatives = negatives_of(case, inputs) if negatives is None else negatives
    if isinstance(negatives, np.ndarray):
        return np.broadcast_to(negatives, (case.num_rows, negatives.shape[-1])), {}
    if isinstance(negatives, AllItems) or (
        isinstance(negatives, UniformNegatives) and negatives.num_negatives >= case.num_items
    ):
        return None, {}
    if isinstance(negatives, InBatchNegatives):
        return _targets_of_groups(case, inputs, negatives.group_size, seed), {}
    if isinstance(negatives, HardNegatives):
        weight = case.num_items / min(negatives.pool, case.num_items)
        return _hardest(case, inputs, negatives, seed, must_be_clear), {
            "logq_correction": False,
            "draw_weight": weight,
        } if case.logq_correction else {}
    if isinstance(negatives, MixedNegatives):
        return _mixed(case, inputs, negatives, seed)
    keywords = {} if isinstance(negatives, UniformNegatives) else {"log_q": _log_q(negatives, case, inputs)}
    return _drawn(negatives, case, inputs, seed), keywords


def _counted(case: Case, inputs: Inputs) -> np.ndarray:
    return np.flatnonzero(inputs.target != case.ignore_index)


def _drawn(negatives: Sampler, case: Case, inputs: Inputs, seed: int) -> np.ndarray:
    drawn = negative_ids(negatives, num_rows=len(_counted(case, inputs)), num_items=case.num_items, seed=seed)
    return spread_over_rows(drawn, inputs.target, case.ignore_index)


def _log_q(sampler: object, case: Case, inputs: Inputs) -> np.ndarray:
    """The log of each item's probability at a draw of the sampler."""
    if isinstance(sampler, InBatchNegatives):
        assert inputs.log_q is not None
        return inputs.log_q
    if isinstance(sampler, UniformNegatives):
        return np.full(case.num_items, -np.log(case.num_items))
    log_weight = sampler.probabilities(case.num_items).log_weight  # type: ignore[attr-defined]
    return -log_weight - np.log(case.num_items)


def _words(seed: int) -> tuple[Any, Any]:
    high_low = [pm.NUMPY.u32(word) for word in pm.seed_words(seed)]
    return high_low[0], high_low[1]


def _groups(case: Case, inputs: Inputs, group_size: int | None, seed: int) -> list[np.ndarray]:
    """The rows of each group, in the order of their places."""
    counted = _counted(case, inputs)
    if group_size is None or not len(counted):
        return [counted]
    places = row_places(pm.NUMPY, _words(seed), np.arange(len(counted)), len(counted), case.shuffle_rows)
    in_order = counted[np.argsort(places)]
    return np.split(in_order, range(group_size, len(in_order), group_size))


def _targets_of_groups(case: Case, inputs: Inputs, group_size: int | None, seed: int) -> np.ndarray:
    """The targets of the rows of each row's group, its own among them, which is dropped as a hit."""
    ids = np.full((case.num_rows, group_size or case.num_rows), EMPTY_SLOT)
    for rows in _groups(case, inputs, group_size, seed):
        ids[rows, : len(rows)] = inputs.target[rows]
    return ids


def _mixed(case: Case, inputs: Inputs, sampler: MixedNegatives, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Both samplers' ids, and the log of the mixture's probabilities."""
    ids, draws = [], []
    parts = sampler.draw(case.num_items).lists
    assert parts is not None
    groups = _groups(case, inputs, case.group_size, seed)
    for number, part in enumerate((sampler.first, sampler.second)):
        in_batch = isinstance(part, InBatchNegatives)
        drawn_at_most = case.num_items if isinstance(part, UniformNegatives) else np.inf
        draws.append(case.group_size - 1 if in_batch else min(part.num_negatives, drawn_at_most))  # type: ignore
        if in_batch:
            ids.append(_targets_of_groups(case, inputs, case.group_size, seed))
            continue
        drawn = list(parts.drawn(pm.NUMPY, _words(seed), np.arange(len(groups))))
        columns = np.asarray(drawn[number][1])
        if not isinstance(part, UniformNegatives):
            columns = items_of_slots(part.probabilities(case.num_items).slot_ends, columns)  # type: ignore
        of_rows = np.full((case.num_rows, draws[-1]), EMPTY_SLOT)
        for rows, own in zip(groups, columns, strict=True):
            of_rows[rows] = own
        ids.append(of_rows)
    together = np.concatenate(ids, 1)
    if not case.logq_correction:
        return together, {}
    q = [np.exp(_log_q(part, case, inputs).astype(np.float64)) for part in (sampler.first, sampler.second)]
    with np.errstate(divide="ignore"):
        log_q = np.log((draws[0] * q[0] + draws[1] * q[1]) / sum(draws))
    return together, {"log_q": log_q}


def _hardest(case: Case, inputs: Inputs, sampler: HardNegatives, seed: int, must_be_clear: bool) -> np.ndarray:
    """The highest-scoring items of each group's pool, by float64 scores."""
    lists = sampler.draw(case.num_items).lists
    assert lists is not None
    groups = _groups(case, inputs, case.group_size, seed)
    pools = drawn_lists(lists, pm.NUMPY, _words(seed), np.arange(len(groups)), None)
    ids = np.full((case.num_rows, lists.negatives), EMPTY_SLOT)
    for rows, pool in zip(groups, pools, strict=True):
        scores = case.logit_scale * inputs.hidden[rows].astype(np.float64) @ inputs.table[pool].astype(np.float64).T
        if inputs.bias is not None:
            scores = scores + inputs.bias[pool]
        if case.softcap is not None:
            scores = case.softcap * np.tanh(scores / case.softcap)
        if case.remove_accidental_hits:
            scores[pool[None, :] == inputs.target[rows][:, None]] = -np.inf
        if inputs.excluded is not None:
            scores[inputs.excluded[rows][:, pool]] = -np.inf
        best = scores.max(0, initial=-np.inf)
        order = np.argsort(-best, kind="stable")
        ids[rows] = pool[order[: lists.negatives]]
        if must_be_clear:
            _check_clear(best, order, lists.negatives, scores)
    return ids


def _check_clear(best: np.ndarray, order: np.ndarray, chosen: int, scores: np.ndarray) -> None:
    """Raise where the last score that is chosen and others would round to the same, but are not."""
    if chosen >= len(best):
        return
    last, following = best[order[chosen - 1]], best[order[chosen]]
    tolerance = 1e-5 * np.abs(scores[np.isfinite(scores)]).max(initial=0)
    if last - following >= tolerance:
        return
    near = best[np.abs(best - last) < tolerance] if np.isfinite(last) else last
    if (near != last).any():
        raise UnclearChoice(f"scores of {last} and {following}")
