"""The scores that come with recommendations, and the places for which no item is left, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.jax_impl.serving import ranking as jax_ranking
from cce_minus.recsys import NO_ITEM, ConfigError, Ragged
from cce_minus.torch_impl.serving import ranking as torch_ranking

from tests.models.test_seen_items import ITEMS, histories, scores_of

K = 9  # more than the third history, which has seen all items but four, leaves


@pytest.fixture(autouse=True)
def in_two_parts(monkeypatch: pytest.MonkeyPatch):
    for ranking in (torch_ranking, jax_ranking):
        monkeypatch.setattr(ranking, "SCORED", 4)


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("candidates", [None, np.arange(3, ITEMS, 2), np.array([30, 2])])
def test_scores_are_those_that_rank(framework: Any, filter_seen: bool, candidates: np.ndarray | None):
    model, rows = framework.build(seed=3), histories()
    plain = scores_of(framework, model, rows)
    options = {"filter_seen": filter_seen, "candidates": candidates, "batch_size": 3}
    items, scores = framework.recommend_with_scores(model, rows, K, **options)
    assert (items.dtype, scores.dtype, items.shape, scores.shape) == (np.int64, np.float32, (7, K), (7, K))
    assert filter_seen == bool((items[2] == NO_ITEM).any()) or candidates is not None
    for row, history in enumerate(rows):
        left_out = set(history.tolist()) if filter_seen else set()
        left = [item for item in (range(ITEMS) if candidates is None else candidates.tolist()) if item not in left_out]
        best = sorted(left, key=lambda item: (-plain[row, item], item))[:K]
        assert items[row].tolist() == best + [NO_ITEM] * (K - len(best))
        np.testing.assert_allclose(scores[row, : len(best)], plain[row, best], rtol=2e-5, atol=1e-6)
        assert (scores[row, len(best) :] == -np.inf).all()


def test_scores_agree_between_frameworks(framework: Any, other: Any, tmp_path):
    model, twin = framework.build(seed=5, model="bert4rec"), other.build(seed=6, model="bert4rec")
    framework.save(model, tmp_path / "weights.safetensors")
    other.load(twin, tmp_path / "weights.safetensors")
    mine, theirs = (
        each.recommend_with_scores(its, histories(), 5, filter_seen=True)
        for each, its in ((framework, model), (other, twin))
    )
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-4, atol=1e-6)


def test_no_history_at_all(framework: Any):
    items, scores = framework.recommend_with_scores(framework.build(), Ragged.from_rows([]), 5, filter_seen=True)
    assert items.shape == scores.shape == (0, 5)


@pytest.mark.parametrize("k", [0, ITEMS + 1])
def test_more_places_than_items_are_named(framework: Any, k: int):
    with pytest.raises(ConfigError, match=f"k: expected an integer from 1 to {ITEMS}, got {k}"):
        framework.recommend_with_scores(framework.build(), histories(), k)
