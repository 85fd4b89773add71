"""Metrics of top-k lists, and their sums over the batches of an evaluation.

A list is one row of (rows, >= k) item ids, best first and distinct; `NO_ITEM` fills places for which no item was left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from ..errors import ConfigError
from .metrics import Ranks, ranking_metrics, require_items

NO_ITEM = -1
"""Id in a list's place for which no item was left."""

Lists = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def self_information(train: Ragged, num_items: int) -> Floats:
    """How surprising each item is: (V,) float64 from 0 to 1, for the metric Surprisal.

    ``-log2(n_i / N) / log2(N)`` for the n_i of N training users that have item i: 0 for an item of all users and 1 for
    one of a single user. Items of nobody count as of one user, which gives 1. As in RePlay's ``Surprisal``
    (sb-ai-lab/RePlay), which the CCE- paper (arXiv 2509.09682) evaluates with.
    """
    user = np.repeat(np.arange(len(train), dtype=np.int64), train.lengths)
    pairs = np.sort(user << 32 | train.values)
    is_new = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
    users_of_item = np.maximum(np.bincount(pairs[is_new] & 0xFFFFFFFF, minlength=num_items), 1)
    users = max(int((train.lengths > 0).sum()), 2)  # a single user makes 0 / 0 otherwise
    return np.clip(np.log2(users / users_of_item) / np.log2(users), 0.0, 1.0)


def coverage_at_k(lists: Lists, k: int, num_items: int) -> float:
    """Share of the catalog that occurs in any list: ``|union of the first k of every list| / V``."""
    return _coverage(_occurrences(lists, k, num_items))


def surprisal_at_k(lists: Lists, k: int, information: Floats) -> float:
    """Mean of `self_information` (V,) over the first k items of every list.

    ``sum over lists u and places j <= k of information[lists[u, j]] / (rows k)``; places without an item count neither
    above nor below.
    """
    return _surprisal(_occurrences(lists, k, len(information)), information)


def list_recall_at_k(lists: Lists, relevant: Ragged, k: int) -> float:
    """Recall for any number of relevant items: the mean over users of ``|first k in relevant| / |relevant|``.

    ``relevant`` has one row of distinct items for each list. Users without a relevant item count as 0.
    """
    hits = _hits(lists, relevant, k)
    return float(np.mean(hits.sum(axis=1) / np.maximum(relevant.lengths, 1)))


def list_map_at_k(lists: Lists, relevant: Ragged, k: int) -> float:
    """Mean average precision for any number of relevant items: the mean over users of
    ``sum over hits at place j <= k of precision@j / min(k, |relevant|)``.

    As RePlay's ``MAP``. ``relevant`` has one row of distinct items for each list. Users without any count as 0.
    """
    hits = _hits(lists, relevant, k)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(np.mean((precision * hits).sum(axis=1) / np.clip(relevant.lengths, 1, k)))


def check_tally(num_items: int, cutoffs: Sequence[int], information: Floats | None) -> None:
    """Raises ``ConfigError`` for information of another catalog than one of V items, and for no or wrong cutoffs."""
    if not cutoffs or min(cutoffs) < 1:
        raise ConfigError(f"cutoffs: expected positive integers, got {tuple(cutoffs)}")
    if information is not None and information.shape != (num_items,):
        raise ConfigError(f"information: expected shape ({num_items},), got {information.shape}")


class MetricsTally:
    """Collects ranks and top lists batch by batch; memory is a rank a row and V counts a cutoff.

    ``cutoffs`` are the k of the metrics. ``information`` (V,) is `self_information` of the training part; None leaves
    Surprisal out. Raises ``ConfigError`` for information of another catalog or no cutoff.
    """

    def __init__(self, num_items: int, *, cutoffs: Sequence[int] = (10,), information: Floats | None = None) -> None:
        check_tally(num_items, cutoffs, information)
        self.cutoffs = tuple(cutoffs)
        self.width = max(cutoffs)
        self._information = information
        self._ranks: list[Ranks] = []
        self._occurrences = {k: np.zeros(num_items, dtype=np.int64) for k in self.cutoffs}

    def add(self, ranks: Ranks, lists: Lists) -> None:
        """Takes in the ranks (rows,) of the targets and the lists (rows, width) of one batch.

        Raises ``ConfigError`` for lists of ids that are no items.
        """
        self._ranks.append(ranks)
        for k, occurrences in self._occurrences.items():
            np.add.at(occurrences, _present(lists, k, len(occurrences)), 1)

    def metrics(self) -> dict[str, float]:
        """`ranking_metrics`, ``coverage@k`` and ``surprisal@k`` of everything added, for every cutoff k."""
        ranks = np.concatenate(self._ranks) if self._ranks else np.zeros(0, dtype=np.int64)
        return tallied_metrics(ranks, self._occurrences, self._information)


def tallied_metrics(
    ranks: Ranks, occurrences: Mapping[int, npt.NDArray[np.integer]], information: Floats | None
) -> dict[str, float]:
    """`ranking_metrics`, ``coverage@k`` and, with ``information`` (V,), ``surprisal@k`` for every cutoff k.

    ``ranks`` (rows,) are the targets', ``occurrences`` of a k (V,) how many lists have an item among their first k.
    """
    found: dict[str, float] = {}
    for k, counts in occurrences.items():
        found |= ranking_metrics(ranks, (k,))
        found[f"coverage@{k}"] = _coverage(counts)
        if information is not None:
            found[f"surprisal@{k}"] = _surprisal(counts, information)
    return found


def _present(lists: Lists, k: int, num_items: int) -> Lists:
    if k < 1:
        raise ConfigError(f"k: expected a positive integer, got {k}")
    top = lists[:, :k]
    present = top[top != NO_ITEM]
    require_items("lists", present, num_items)
    return present


def _occurrences(lists: Lists, k: int, num_items: int) -> npt.NDArray[np.int64]:
    return np.bincount(_present(lists, k, num_items), minlength=num_items).astype(np.int64)


def _coverage(occurrences: npt.NDArray[np.integer]) -> float:
    return float(np.mean(occurrences > 0))


def _surprisal(occurrences: npt.NDArray[np.integer], information: Floats) -> float:
    # not a product of vectors, which NumPy makes slowly of integers and floats
    return float((occurrences * information).sum() / max(int(occurrences.sum()), 1))


def _hits(lists: Lists, relevant: Ragged, k: int) -> npt.NDArray[np.bool_]:
    """(rows, <= k) whether the item at each place is relevant."""
    if k < 1:
        raise ConfigError(f"k: expected a positive integer, got {k}")
    if len(lists) != len(relevant):
        raise ConfigError(f"relevant: expected one row for each of {len(lists)} lists, got {len(relevant)}")
    return np.array([np.isin(top, items) for top, items in zip(lists[:, :k], relevant, strict=True)], dtype=bool)
