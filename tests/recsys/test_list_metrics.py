"""Metrics of top-k lists against plain formulas and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cce_minus.recsys import (
    NO_ITEM,
    ConfigError,
    DataError,
    MetricsTally,
    Ragged,
    coverage_at_k,
    list_map_at_k,
    list_recall_at_k,
    ranking_metrics,
    self_information,
    surprisal_at_k,
)
from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

ITEMS = 30


def training_rows() -> Ragged:
    rng = np.random.default_rng(0)
    return Ragged.from_rows([rng.integers(0, 25, length) for length in rng.integers(1, 20, 16)])


def random_lists(rows: int = 12, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(ITEMS)[:width] for _ in range(rows)])


def plain_information(train: Ragged, item: int) -> float:
    users = sum(item in row for row in train)
    return 1.0 if users == 0 else -math.log2(users / len(train)) / math.log2(len(train))


def test_self_information_is_the_formula():
    train = training_rows()
    expected = [plain_information(train, item) for item in range(ITEMS)]
    np.testing.assert_allclose(self_information(train, ITEMS), expected, rtol=1e-12)
    assert expected[-1] == 1.0


def test_self_information_at_the_ends():
    train = Ragged.from_rows([[0, 0, 1], [0, 2], [0, 2], [0]])
    assert self_information(train, 4).tolist() == [0.0, 1.0, 0.5, 1.0]
    assert self_information(Ragged.from_rows([[1]]), 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_coverage_and_surprisal_are_the_formulas(k: int):
    lists, train = random_lists(), training_rows()
    assert coverage_at_k(lists, k, ITEMS) == len({item for row in lists for item in row[:k]}) / ITEMS
    mean = np.mean([plain_information(train, item) for row in lists for item in row[:k]])
    assert surprisal_at_k(lists, k, self_information(train, ITEMS)) == pytest.approx(mean)


def test_places_without_an_item_do_not_count():
    lists = np.array([[0, 2, NO_ITEM], [2, NO_ITEM, NO_ITEM]])
    assert coverage_at_k(lists, 3, 4) == 0.5
    assert surprisal_at_k(lists, 3, np.array([0.25, 9, 1, 9])) == pytest.approx(0.75)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_recall_and_map_of_many_relevant_items(k: int):
    rng = np.random.default_rng(2)
    scores = torch.from_numpy(rng.permutation(12 * ITEMS).reshape(12, ITEMS).astype(np.float32))
    relevant = [rng.permutation(ITEMS)[: 1 + row % 6] for row in range(12)]
    lists = scores.argsort(dim=1, descending=True)[:, :8].numpy()
    mask = torch.zeros(12, ITEMS, dtype=torch.bool)
    for row, items in enumerate(relevant):
        mask[row, torch.from_numpy(items)] = True
    users = torch.arange(12)[:, None].expand(12, ITEMS)
    expected = RetrievalRecall(top_k=k)(scores.flatten(), mask.flatten(), indexes=users.flatten()).item()
    assert list_recall_at_k(lists, Ragged.from_rows(relevant), k) == pytest.approx(expected)
    # torchmetrics divides by the hits, the metric here by the hits there could be.
    parts = []
    for row in range(12):
        theirs = RetrievalMAP(top_k=k)(scores[row], mask[row], indexes=users[row]).item()
        hits = len(set(lists[row, :k].tolist()) & set(relevant[row].tolist()))
        parts.append(theirs * hits / min(k, len(relevant[row])))
    assert list_map_at_k(lists, Ragged.from_rows(relevant), k) == pytest.approx(np.mean(parts))


def test_one_relevant_item_gives_the_metrics_of_ranks():
    lists = random_lists()
    targets = lists[np.arange(12), np.arange(12) % 8]
    metrics = ranking_metrics(1 + np.arange(12) % 8, (5,))
    relevant = Ragged.from_rows([[target] for target in targets])
    assert list_recall_at_k(lists, relevant, 5) == metrics["recall@5"] == metrics["hr@5"]
    assert list_map_at_k(lists, relevant, 5) == pytest.approx(metrics["map@5"])
    assert metrics["map@5"] == metrics["mrr@5"]


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_a_tally_of_batches_is_the_whole(batch: int):
    lists, information, ranks = random_lists(), self_information(training_rows(), ITEMS), 1 + np.arange(12) % 9
    tally = MetricsTally(ITEMS, cutoffs=(2, 8), information=information)
    assert tally.width == 8
    for begin in range(0, 12, batch):
        tally.add(ranks[begin : begin + batch], lists[begin : begin + batch])
    expected = ranking_metrics(ranks, (2, 8))
    for k in (2, 8):
        expected |= {
            f"coverage@{k}": coverage_at_k(lists, k, ITEMS),
            f"surprisal@{k}": surprisal_at_k(lists, k, information),
        }
    assert tally.metrics() == pytest.approx(expected)


def test_unusable_arguments_are_named():
    with pytest.raises(ConfigError, match=r"cutoffs: expected positive integers, got \(\)"):
        MetricsTally(5, cutoffs=())
    with pytest.raises(ConfigError, match=r"information: expected shape \(5,\), got \(4,\)"):
        MetricsTally(5, information=np.zeros(4))
    with pytest.raises(DataError, match="at least one rank"):
        MetricsTally(5).metrics()
    with pytest.raises(ConfigError, match="k: expected a positive integer, got 0"):
        coverage_at_k(random_lists(), 0, ITEMS)
    with pytest.raises(ConfigError, match="relevant: expected one row for each of 12 lists, got 1"):
        list_recall_at_k(random_lists(), Ragged.from_rows([[1]]), 3)


@pytest.mark.parametrize("item", [-2, ITEMS])
def test_ids_that_are_no_items_are_refused(item: int):
    lists = np.array([[3, item, NO_ITEM]])
    with pytest.raises(ConfigError, match=rf"lists: expected ids in \[0, {ITEMS}\), got"):
        coverage_at_k(lists, 2, ITEMS)
    with pytest.raises(ConfigError, match=rf"lists: expected ids in \[0, {ITEMS}\), got"):
        MetricsTally(ITEMS).add(np.array([1]), lists)
