"""Full-catalog ranks and recommendations on the device against the framework-free definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import ConfigError, Ragged, ranking_metrics, target_ranks

CHUNKS = [7, 64, 103, 1000]


def tied_case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small integers: every score is exact and most are tied; one user scores everything 0."""
    rng = np.random.default_rng(0)
    table = rng.integers(-2, 3, (103, 4)).astype(np.float32)
    hidden = rng.integers(-2, 3, (9, 4)).astype(np.float32)
    hidden[3] = 0
    return hidden, table, rng.integers(0, 103, 9).astype(np.int32)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_ranks_with_ties(framework: Any, chunk: int):
    hidden, table, target = tied_case()
    np.testing.assert_array_equal(
        framework.target_ranks(hidden, table, target, chunk), target_ranks(hidden, table, target)
    )
    assert framework.target_ranks(hidden, table, target, chunk)[3] == target[3] + 1


def test_ranks_with_nan_scores(framework: Any):
    hidden, table, target = tied_case()
    table[50] = np.nan
    target[0] = 50
    np.testing.assert_array_equal(
        framework.target_ranks(hidden, table, target, 16), target_ranks(hidden, table, target)
    )


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("k", [1, 5, 103])
def test_top_items_are_a_stable_sort(framework: Any, chunk: int, k: int):
    hidden, table, _ = tied_case()
    expected = np.argsort(-(hidden @ table.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(framework.top_items(hidden, table, k, chunk), expected)


def test_top_items_put_nan_last(framework: Any):
    hidden, table, _ = tied_case()
    table[0] = np.nan
    assert (framework.top_items(hidden, table, 103, 16)[:, -1] == 0).all()


def histories() -> Ragged:
    rng = np.random.default_rng(1)
    return Ragged.from_rows([rng.integers(0, 37, length) for length in (1, 3, 12, 30, 7, 2, 5)])


def test_evaluate_is_the_definition(framework: Any, model_name: str):
    model, rows = framework.build(model=model_name), histories()
    targets = np.arange(len(rows), dtype=np.int32)
    inputs = np.full((len(rows), 12), -1, np.int32)
    for row, items in enumerate(rows):
        inputs[row, -len(items[-12:]) :] = items[-12:]
    table = np.asarray(model.item_table[...] if framework.name == "jax" else model.item_table.detach())
    ranks = target_ranks(framework.next_item_hidden(model, inputs), table, targets)
    got = framework.evaluate(model, rows, targets, batch_size=3, chunk=10)
    assert {name: got[name] for name in ranking_metrics(ranks)} == pytest.approx(ranking_metrics(ranks))
    assert set(got) == {"ndcg@10", "hr@10", "mrr@10", "recall@10", "map@10", "coverage@10"}


def test_recommendations_agree_between_frameworks(framework: Any, other: Any, model_name: str, tmp_path):
    model, twin = framework.build(seed=5, model=model_name), other.build(seed=6, model=model_name)
    framework.save(model, tmp_path / "weights.safetensors")
    other.load(twin, tmp_path / "weights.safetensors")
    mine = framework.recommend(model, histories(), 8, batch_size=3, chunk=10)
    np.testing.assert_array_equal(other.recommend(twin, list(histories()), 8, batch_size=4), mine)
    assert mine.shape == (7, 8)
    assert all(len(set(row)) == 8 for row in mine)


@pytest.mark.parametrize("k", [0, 38])
def test_recommending_an_impossible_number_is_named(framework: Any, k: int):
    with pytest.raises(ConfigError, match=f"k: expected an integer from 1 to 37, got {k}"):
        framework.recommend(framework.build(), [[1, 2]], k)


def test_recommending_for_unknown_items_is_named(framework: Any):
    with pytest.raises(ConfigError, match=r"histories: expected ids in \[0, 37\), got 1..37"):
        framework.recommend(framework.build(), [[1, 37]], 3)
