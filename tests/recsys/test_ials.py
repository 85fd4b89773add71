"""Implicit alternating least squares, beside popularity and its own formula."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from cce_minus.recsys import ConfigError, Interactions, Ragged, baseline_metrics, leave_one_out
from cce_minus.recsys.baselines import ials
from cce_minus.recsys.baselines.ials import Ials, fit_ials

from tests.recsys.small_logs import ITEMS, log_of, questions, random_rows


def planted(users: int = 120, num_items: int = 60) -> Interactions:
    """Users of three tastes, each of twenty items; the most popular items are everybody's."""
    rng = np.random.default_rng(0)
    rows = [
        [
            *rng.permutation(20)[:8] + 20 * (user % 3),
            *rng.integers(0, num_items, 1),
            *rng.permutation(20)[:2] + 20 * (user % 3),
        ]
        for user in range(users)
    ]
    return log_of([[int(item) for item in row] for row in rows], num_items=num_items)


def test_ials_beats_popularity_on_planted_tastes():
    log = planted()
    split = leave_one_out(log)
    options = {"filter_seen": True, "seed": 3}
    found = [
        baseline_metrics(("popularity", "ials"), log, split, split.test_history, split.test_target, **options)
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert found[0]["ials"]["ndcg@10"] > 1.5 * found[0]["popularity"]["ndcg@10"]


def test_ials_solves_for_histories_as_its_formula_says():
    train, (histories, targets) = Ragged.from_rows(random_rows(2)), questions(2)
    model = Ials(train, ITEMS, alpha=4.0, seed=1)
    items = model._model.item_factors.astype(np.float64)
    scores = model.scores(Ragged.from_rows(histories))
    assert scores.dtype == np.float32
    for history, row in zip(histories, scores, strict=True):
        if not history:
            assert (
                np.argsort(-row, kind="stable").tolist() == np.argsort(-model.popularity_levels, kind="stable").tolist()
            )
            continue
        counts = np.bincount(history, minlength=ITEMS)
        weights = np.where(counts > 0, 4.0 * counts, 1.0)
        solved = np.linalg.solve(
            items.T @ (weights[:, None] * items) + 0.01 * np.eye(items.shape[1]), items.T @ (weights * (counts > 0))
        )
        np.testing.assert_allclose(row, items @ solved, atol=1e-3)
    ranks = [
        model.ranks(Ragged.from_rows(histories), targets, filter_seen=True, users_at_once=size).tolist()
        for size in (None, 1, 7)
    ]
    assert ranks[0] == ranks[1] == ranks[2]


def test_alpha_is_chosen_without_the_test(caplog: pytest.LogCaptureFixture):
    """Other test targets change nothing, with and without a validation part."""
    log = planted()
    for train_on_valid in (False, True):
        split = leave_one_out(log, train_on_valid=train_on_valid)
        other = replace(split, test_target=split.test_target[::-1])
        with caplog.at_level("INFO", logger="cce_minus"):
            caplog.clear()
            scores = [fit_ials(each, filter_seen=True).scores(split.test_history) for each in (split, other)]
        np.testing.assert_array_equal(scores[0], scores[1])
        assert [record.getMessage().startswith("ials: alpha ") for record in caplog.records] == [True, True]


def test_without_the_package_ials_says_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "implicit" else found(name))
    log = log_of(random_rows(4))
    split = leave_one_out(log)
    arguments = (log, split, split.test_history, split.test_target)
    with pytest.raises(ConfigError, match=r"ials expected the package implicit, .* 'cce-minus\[baselines\]'"):
        baseline_metrics(["popularity", "ials"], *arguments)
    assert baseline_metrics(["popularity"], *arguments)


def test_without_validation_some_rows_choose_alpha(monkeypatch: pytest.MonkeyPatch):
    split = leave_one_out(log_of(random_rows(4, longest=12)))
    none = Ragged.from_rows([])
    split = replace(split, valid_history=none, valid_target=split.valid_target[:0])
    asked = list[int]()
    ranks = Ials.ranks

    def counted(self: Ials, histories: Ragged, targets: np.ndarray, *, filter_seen: bool = False) -> np.ndarray:
        asked.append(len(targets))
        return ranks(self, histories, targets, filter_seen=filter_seen)

    monkeypatch.setattr(Ials, "ranks", counted)
    monkeypatch.setattr(ials, "_CHOOSING", 7)
    first, again = fit_ials(split, seed=3), fit_ials(split, seed=3)
    assert asked == [7] * 8
    assert first.alpha == again.alpha
