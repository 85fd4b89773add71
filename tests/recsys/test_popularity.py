from __future__ import annotations

import numpy as np
import pytest
from cce_minus.recsys import ConfigError, PopularityBaseline, Ragged, item_counts, smoothed_frequencies, target_ranks


def test_ranks_by_hand():
    train = Ragged.from_rows([[3, 3, 1], [3, 2], [1]])
    popularity = PopularityBaseline(train, num_items=6)
    assert popularity.counts.tolist() == [0, 2, 1, 3, 0, 0]
    assert popularity.top(3).tolist() == [3, 1, 2]
    # Items 0, 4 and 5 tie at no interactions.
    assert popularity.ranks(np.arange(6)).tolist() == [4, 2, 3, 1, 5, 6]
    metrics = popularity.metrics(np.array([3, 1, 5]), ks=(2,))
    assert metrics["hr@2"] == pytest.approx(2 / 3)
    assert metrics["mrr@2"] == pytest.approx((1 + 1 / 2) / 3)
    assert metrics["ndcg@2"] == pytest.approx((1 + 1 / np.log2(3)) / 3)


def test_same_ranks_as_a_model_that_scores_the_counts():
    rng = np.random.default_rng(0)
    train = Ragged.from_rows([rng.integers(0, 40, 9) for _ in range(20)])
    popularity = PopularityBaseline(train, num_items=50)
    targets = rng.integers(0, 50, 64)
    table = popularity.counts[:, None].astype(np.float64)
    expected = target_ranks(np.ones((64, 1)), table, targets, chunk=16)
    assert popularity.ranks(targets).tolist() == expected.tolist()


def test_seen_items_are_left_out_of_the_ranking():
    rng = np.random.default_rng(1)
    popularity = PopularityBaseline(Ragged.from_rows([rng.integers(0, 30, 9) for _ in range(20)]), num_items=40)
    targets = rng.integers(0, 40, 50)
    seen = [rng.integers(0, 40, rng.integers(0, 60)) for _ in targets]
    order = popularity.top(40).tolist()
    assert sorted(order) == list(range(40))
    expected = [
        1 + [item for item in order if item == target or item not in row.tolist()].index(target)
        for target, row in zip(targets.tolist(), seen, strict=True)
    ]
    assert popularity.ranks(targets, Ragged.from_rows(seen)).tolist() == expected
    empty = PopularityBaseline(Ragged.from_rows([[]]), num_items=4)
    assert empty.ranks(np.arange(4)).tolist() == [1, 2, 3, 4]
    assert empty.top(9).tolist() == [0, 1, 2, 3]


def test_smoothed_frequencies_by_hand():
    counts = item_counts(Ragged.from_rows([[3, 3, 1], [], [1]]), num_items=4)
    assert counts.tolist() == [0, 2, 0, 2]
    frequencies = smoothed_frequencies(counts)
    assert frequencies.dtype == np.float32
    np.testing.assert_allclose(frequencies, np.array([1, 3, 1, 3]) / 8)


@pytest.mark.parametrize("target", [-1, 4])
def test_targets_that_are_no_items_are_refused(target: int):
    with pytest.raises(ConfigError, match=rf"targets: expected ids in \[0, 4\), got 2..{target}|got {target}..2"):
        PopularityBaseline(Ragged.from_rows([[3, 3, 1]]), num_items=4).ranks(np.array([2, target]))
