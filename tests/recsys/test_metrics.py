from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cce_minus.recsys import (
    ConfigError,
    DataError,
    hr_at_k,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    ranking_metrics,
    recall_at_k,
    target_ranks,
)
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall


def sorted_rank(scores: npt.NDArray[np.floating], target: int) -> int:
    """Place of the target in a stable sort by falling score."""
    return 1 + int(np.flatnonzero(np.argsort(-scores, kind="stable") == target)[0])


def problem(rows: int, items: int, width: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], ...]:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((rows, width)).astype(np.float32)
    table = rng.standard_normal((items, width)).astype(np.float32)
    return hidden, table


@pytest.mark.parametrize("chunk", [1, 7, 50, 64, 1000], ids=lambda chunk: f"chunk{chunk}")
def test_ranks_are_places_in_a_stable_sort(chunk: int):
    hidden, table = problem(rows=40, items=50, width=8)
    targets = np.random.default_rng(1).integers(0, 50, 40)
    expected = [sorted_rank(row, target) for row, target in zip(hidden @ table.T, targets, strict=True)]
    ranks = target_ranks(hidden, table, targets, chunk=chunk)
    assert ranks.tolist() == expected
    assert ranks.dtype == np.int64


@pytest.mark.parametrize("chunk", [1, 3, 5, 100])
def test_ties_go_to_the_lower_id_across_chunks(chunk: int):
    # Small integers: the scores are exact, with many ties.
    rng = np.random.default_rng(2)
    hidden = rng.integers(-2, 3, (30, 3)).astype(np.float32)
    table = rng.integers(-1, 2, (17, 3)).astype(np.float32)
    targets = rng.integers(0, 17, 30)
    scores = hidden @ table.T
    expected = [sorted_rank(row, target) for row, target in zip(scores, targets, strict=True)]
    assert target_ranks(hidden, table, targets, chunk=chunk).tolist() == expected


def test_equal_scores_everywhere_rank_by_id():
    targets = np.arange(6)
    ranks = target_ranks(np.zeros((6, 4)), np.ones((6, 4)), targets, chunk=4)
    assert ranks.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("items", [2, 17, 32, 100])
@pytest.mark.parametrize("width", [7, 96])
def test_equal_table_rows_tie_after_rounding_too(items: int, width: int):
    hidden, table = problem(rows=64, items=1, width=width, seed=5)
    ranks = target_ranks(hidden, np.repeat(table, items, axis=0), np.arange(64) % items, chunk=32)
    assert ranks.tolist() == (np.arange(64) % items + 1).tolist()


def test_a_nan_target_score_is_never_a_hit():
    hidden, table = problem(rows=3, items=5, width=2)
    hidden[1] = np.nan
    ranks = target_ranks(hidden, table, np.array([0, 1, 2]))
    assert ranks[1] == 6
    assert np.isin(ranks[[0, 2]], np.arange(1, 6)).all()
    assert hr_at_k(ranks[1:2], 5) == 0.0


def test_a_nan_rival_counts_as_ahead():
    table = np.array([[1.0], [np.nan], [3.0], [np.nan]])
    ranks = target_ranks(np.ones((2, 1)), table, np.array([2, 1]), chunk=3)
    assert ranks.tolist() == [3, 5]


def test_infinite_scores_rank_at_the_ends():
    table = np.array([[-np.inf], [0.0], [np.inf]])
    assert target_ranks(np.ones((3, 1)), table, np.array([0, 1, 2])).tolist() == [3, 2, 1]


def test_no_rows_give_no_ranks():
    assert target_ranks(np.zeros((0, 3)), np.zeros((4, 3)), np.zeros(0, dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("hidden", "table", "targets", "chunk", "name"),
    [
        ((2, 3), (5, 4), [0, 1], 8, "hidden, table"),
        ((2, 3, 1), (5, 3), [0, 1], 8, "hidden, table"),
        ((2, 3), (5, 3), [0], 8, "targets"),
        ((2, 3), (5, 3), [0, 5], 8, "targets"),
        ((2, 3), (5, 3), [-100, 0], 8, "targets"),
        ((2, 3), (5, 3), [0, 1], 0, "chunk"),
    ],
)
def test_bad_arguments_are_named(
    hidden: tuple[int, ...], table: tuple[int, ...], targets: list[int], chunk: int, name: str
):
    with pytest.raises(ConfigError, match=name):
        target_ranks(np.zeros(hidden), np.zeros(table), np.array(targets), chunk=chunk)


def test_metrics_by_hand():
    ranks = np.array([1, 3, 10, 11])
    assert hr_at_k(ranks, 10) == 0.75
    assert mrr_at_k(ranks, 10) == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)
    assert ndcg_at_k(ranks, 10) == pytest.approx((1 + 1 / 2 + 1 / np.log2(11)) / 4)


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ndcg_at_k, RetrievalNormalizedDCG),
        (hr_at_k, RetrievalHitRate),
        (mrr_at_k, RetrievalMRR),
        (recall_at_k, RetrievalRecall),
        (map_at_k, RetrievalMAP),
    ],
    ids=["ndcg", "hr", "mrr", "recall", "map"],
)
def test_agrees_with_torchmetrics(ours: Callable[..., float], theirs: Callable[..., Any], k: int):
    hidden, table = problem(rows=30, items=24, width=6, seed=7)
    targets = np.random.default_rng(8).integers(0, 24, 30)
    scores = torch.from_numpy(hidden @ table.T)
    relevant = torch.nn.functional.one_hot(torch.from_numpy(targets), 24).bool()
    users = torch.arange(30)[:, None].expand(30, 24)
    expected = theirs(top_k=k)(scores.flatten(), relevant.flatten(), indexes=users.flatten()).item()
    assert ours(target_ranks(hidden, table, targets), k) == pytest.approx(expected, rel=1e-6)


def test_ranking_metrics_names():
    metrics = ranking_metrics(np.array([1, 7]), ks=(5, 10))
    assert list(metrics) == [f"{name}@{k}" for k in (5, 10) for name in ("ndcg", "hr", "mrr", "recall", "map")]
    assert metrics["hr@5"] == 0.5
    assert metrics["hr@10"] == 1.0
    assert list(ranking_metrics(np.array([1]))) == ["ndcg@10", "hr@10", "mrr@10", "recall@10", "map@10"]


def test_metrics_of_nothing_or_of_no_ranks_raise():
    with pytest.raises(DataError, match="at least one rank"):
        ndcg_at_k(np.array([], dtype=np.int64), 10)
    with pytest.raises(DataError, match="ranks from 1"):
        hr_at_k(np.array([0, 1]), 10)
    with pytest.raises(ConfigError, match="k: expected a positive integer, got 0"):
        mrr_at_k(np.array([1]), 0)
