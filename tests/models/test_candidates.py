"""Evaluation and recommendations among some items of the catalog, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import ConfigError

from tests.models.test_seen_items import ITEMS, histories, scores_of, targets

CANDIDATES, EXCLUDED = np.arange(3, ITEMS, 2), np.array([5, 17, 17])
LEFT = sorted(set(CANDIDATES.tolist()) - set(EXCLUDED.tolist()))


@pytest.mark.parametrize("chunk", [5, 8192])
@pytest.mark.parametrize("filter_seen", [False, True])
def test_recommendations_are_the_best_candidates(framework: Any, filter_seen: bool, chunk: int):
    model, rows = framework.build(seed=3), histories()
    scores = scores_of(framework, model, rows)
    options = {"candidates": CANDIDATES, "excluded": EXCLUDED, "chunk": chunk}
    got = framework.recommend(model, rows, 2, filter_seen=filter_seen, **options)
    for row, (items, best) in enumerate(zip(rows, got.tolist(), strict=True)):
        left = [item for item in LEFT if not (filter_seen and item in items)]
        assert best == sorted(left, key=lambda item: -scores[row, item])[:2]


def test_targets_compete_with_candidates_alone(framework: Any):
    model, rows = framework.build(seed=3), histories()
    scores, target = scores_of(framework, model, rows), targets(histories())
    own = scores[np.arange(len(rows)), target]
    rank = 1 + (scores[:, CANDIDATES] > own[:, None]).sum(axis=1)
    got = framework.evaluate(model, rows, target, candidates=CANDIDATES)
    assert got["mrr@10"] == pytest.approx(np.where(rank <= 10, 1 / rank, 0).mean())
    assert got["coverage@10"] <= len(CANDIDATES) / ITEMS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": [0, ITEMS]}, r"candidates: expected ids in \[0, 37\), got 0\.\.37"),
        ({"excluded": [-1]}, r"excluded: expected ids in \[0, 37\), got -1\.\.-1"),
        ({"candidates": [[1]]}, "candidates: expected item ids"),
        ({"candidates": ["a"]}, "candidates: expected item ids"),
        ({"candidates": [1, 2], "excluded": [2, 1]}, "candidates: expected at least one that is not excluded"),
        ({"candidates": [1]}, "k: expected an integer from 1 to 1, got 2"),
        ({"candidates": [1, 2, 3], "filter_seen": True}, "k: expected at most 0 with filter_seen"),
    ],
)
def test_what_is_no_candidate_is_named(framework: Any, options: dict[str, Any], message: str):
    model = framework.build(seed=3)
    with pytest.raises(ConfigError, match=message):
        framework.recommend(model, histories(), 2, **options)
