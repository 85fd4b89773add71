"""Ranking metrics over the full catalog.

The rank of a target is its place in a stable sort of all items by falling score:
``rank = 1 + #(score > target score) + #(score == target score and item id < target id)``.
A NaN score counts as higher than every number, as in ``torch.sort``, and a NaN target score gives rank ``V + 1``: a
model that diverged never scores a hit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError

Ranks = npt.NDArray[np.integer]


def target_ranks(
    hidden: npt.NDArray[np.floating],
    table: npt.NDArray[np.floating],
    targets: npt.NDArray[np.integer],
    *,
    chunk: int = 8192,
) -> npt.NDArray[np.int64]:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int64, 1 is best.

    ``hidden`` is (B, D), ``table`` (V, D), ``targets`` (B,). Scores exist for ``chunk`` items at a time,
    never as (B, V).
    """
    if hidden.ndim != 2 or table.ndim != 2 or hidden.shape[1] != table.shape[1]:
        raise ConfigError(f"hidden, table: expected (B, D) and (V, D), got {hidden.shape} and {table.shape}")
    if targets.shape != hidden.shape[:1]:
        raise ConfigError(f"targets: expected shape {hidden.shape[:1]}, got {targets.shape}")
    require_items("targets", targets, len(table))
    if chunk < 1:
        raise ConfigError(f"chunk: expected a positive integer, got {chunk}")

    # The target's score comes from the same products as its rivals': a dot product of its own could round
    # differently and break ties between equal rows.
    target_score = np.empty(len(targets), dtype=np.result_type(hidden, table))
    for begin, scores in _score_chunks(hidden, table, chunk):
        rows = np.flatnonzero((begin <= targets) & (targets < begin + chunk))
        target_score[rows] = scores[rows, targets[rows] - begin]

    ranks = np.ones(len(targets), dtype=np.int64)
    for begin, scores in _score_chunks(hidden, table, chunk):
        ids = np.arange(begin, begin + scores.shape[1])
        ranks += _count_ahead(scores, target_score[:, None], ids < targets[:, None])
    ranks[np.isnan(target_score)] = len(table) + 1
    return ranks


def score_ranks(scores: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Rank of each target among its row of ``scores`` (B, V), as `target_ranks` counts it: (B,) int64, 1 is best."""
    target_score = scores[np.arange(len(targets)), targets]
    ranks = 1 + _count_ahead(scores, target_score[:, None], np.arange(scores.shape[1]) < targets[:, None])
    ranks[np.isnan(target_score)] = scores.shape[1] + 1
    return ranks


def require_items(name: str, ids: npt.NDArray[np.integer], num_items: int) -> None:
    """Raises ``ConfigError`` for ids outside [0, V), which arrays of V numbers would take from their other end."""
    if ids.size and not (ids.min() >= 0 and ids.max() < num_items):
        raise ConfigError(f"{name}: expected ids in [0, {num_items}), got {ids.min()}..{ids.max()}")


def _score_chunks(
    hidden: npt.NDArray[np.floating], table: npt.NDArray[np.floating], chunk: int
) -> Iterator[tuple[int, npt.NDArray[np.floating]]]:
    for begin in range(0, len(table), chunk):
        # each score as a dot product of its own: a matrix product may round by the place in it, so that equal rows
        # of the table would not tie (OpenBLAS does on some processors)
        yield begin, np.einsum("bd,vd->bv", hidden, table[begin : begin + chunk], optimize=False)


def _count_ahead(
    scores: npt.NDArray[np.floating], target_score: npt.NDArray[np.floating], lower_id: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    ahead = (scores > target_score) | np.isnan(scores) | ((scores == target_score) & lower_id)
    return ahead.sum(axis=1, dtype=np.int64)


def hr_at_k(ranks: Ranks, k: int) -> float:
    """Hit rate: the mean of ``[rank <= k]``, the share of rows with a relevant item in the top k."""
    return float(np.mean(_checked(ranks, k) <= k))


def ndcg_at_k(ranks: Ranks, k: int) -> float:
    """Normalised discounted cumulative gain: the mean of ``[rank <= k] / log2(rank + 1)``.

    DCG@k (Järvelin and Kekäläinen, 2002) over its best value, which is 1 for one relevant item.
    """
    ranks = _checked(ranks, k)
    return float(np.mean(np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)))


def mrr_at_k(ranks: Ranks, k: int) -> float:
    """Mean reciprocal rank: the mean of ``[rank <= k] / rank``."""
    ranks = _checked(ranks, k)
    return float(np.mean(np.where(ranks <= k, 1.0 / ranks, 0.0)))


def recall_at_k(ranks: Ranks, k: int) -> float:
    """Recall: the mean of ``|relevant items in the top k| / |relevant items|``.

    Each row has one relevant item, its target, so that this is `hr_at_k`; `list_recall_at_k` takes any number of them.
    """
    return hr_at_k(ranks, k)


def map_at_k(ranks: Ranks, k: int) -> float:
    """Mean average precision: the mean of ``sum over hits at place j <= k of precision@j / min(k, |relevant items|)``.

    Each row has one relevant item, its target, so that this is `mrr_at_k`; `list_map_at_k` takes any number of them.
    """
    return mrr_at_k(ranks, k)


RANK_METRICS: dict[str, Callable[[Ranks, int], float]] = {
    "ndcg": ndcg_at_k,
    "hr": hr_at_k,
    "mrr": mrr_at_k,
    "recall": recall_at_k,
    "map": map_at_k,
}
"""The metrics that the target's rank decides, by the name before ``@k``."""


def ranking_metrics(ranks: Ranks, ks: Sequence[int] = (10,)) -> dict[str, float]:
    """``{"ndcg@k": .., "hr@k": .., "mrr@k": .., "recall@k": .., "map@k": ..}`` for every k of ``ks``; ranks are
    (rows,), 1 is best."""
    return {f"{name}@{k}": metric(ranks, k) for k in ks for name, metric in RANK_METRICS.items()}


def _checked(ranks: Ranks, k: int) -> Ranks:
    if k < 1:
        raise ConfigError(f"k: expected a positive integer, got {k}")
    if len(ranks) == 0:
        raise DataError("ranks: expected at least one rank, got none")
    if ranks.min() < 1:
        raise DataError(f"ranks: expected ranks from 1, got {ranks.min()}")
    return ranks
