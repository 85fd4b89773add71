"""Baselines against rankings by brute force, and what they say of logs that they cannot serve."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import (
    BASELINES,
    ConfigError,
    Ragged,
    baseline_metrics,
    leave_one_out,
    ranking_metrics,
)
from cce_minus.recsys.baselines import choices, item_knn, vsknn
from cce_minus.recsys.baselines.item_knn import ItemKnn
from cce_minus.recsys.baselines.markov import Markov
from cce_minus.recsys.baselines.vsknn import Vsknn, last_times

from tests.recsys.small_logs import ITEMS, START, Rows, log_of, questions, random_rows


def ranks_of(keys: list[list[Any]], histories: Rows, targets: np.ndarray, filter_seen: bool) -> list[int]:
    """By keys of each row's items, larger ones first, then by the lower id."""
    found = []
    for of_row, history, target in zip(keys, histories, targets.tolist(), strict=True):
        left = [item for item in range(ITEMS) if item == target or not (filter_seen and item in history)]
        order = sorted(left, key=lambda item: of_row[item], reverse=True)  # stable: lower ids first
        found.append(1 + order.index(target))
    return found


def markov_keys(train: Rows, histories: Rows) -> list[list[Any]]:
    popularity = Counter(item for row in train for item in row)
    after = Counter(pair for row in train for pair in pairwise(row))
    return [
        [(after[history[-1], item] if history else 0, popularity[item]) for item in range(ITEMS)]
        for history in histories
    ]


def knn_keys(train: Rows, histories: Rows) -> list[list[Any]]:
    popularity = Counter(item for row in train for item in row)
    has = np.array([[item in row for item in range(ITEMS)] for row in train], dtype=float)
    users = has.sum(axis=0)
    cosine = (has.T @ has) / np.sqrt(np.maximum(np.outer(users, users), 1))
    np.fill_diagonal(cosine, 0)
    sums = [cosine[sorted(set(history))].sum(axis=0).round(9).tolist() for history in histories]
    return [[(score, popularity[item] if score == 0 else 0) for item, score in enumerate(row)] for row in sums]


def vsknn_keys(train: Rows, histories: Rows) -> list[list[Any]]:
    """Of rows of which every other ends at the same time, with so few neighbours as `few_neighbours` says."""
    popularity = Counter(item for row in train for item in row)
    latest = sorted(range(len(train)), key=lambda row: (row // 2, row), reverse=True)
    found = []
    for history in histories:
        weight = {item: place for place, item in enumerate(history, 1)}  # the last place counts
        near = [(sum(weight.get(item, 0) for item in set(train[row])), row) for row in latest]
        near = sorted([pair for pair in near if pair[0] > 0][:7], key=lambda pair: pair[0], reverse=True)[:3]
        score = Counter[int]()
        for value, row in near:
            score.update(dict.fromkeys(train[row], value))
        found.append([(score[item], 0 if score[item] else popularity[item]) for item in range(ITEMS)])
    return found


@pytest.fixture
def few_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsknn, "RECENT_ROWS", 7)
    monkeypatch.setattr(vsknn, "NEIGHBOURS", 3)


def make_vsknn(train: Ragged, num_items: int) -> Vsknn:
    return Vsknn(train, START + np.arange(len(train)) // 2, num_items)


@pytest.mark.usefixtures("few_neighbours")
@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("made", "keys"),
    [(Markov, markov_keys), (ItemKnn, knn_keys), (make_vsknn, vsknn_keys)],
    ids=["markov", "itemknn", "vsknn"],
)
def test_ranks_by_brute_force(made: Any, keys: Any, seed: int, filter_seen: bool):
    train, (histories, targets) = random_rows(seed), questions(seed)
    baseline = made(Ragged.from_rows(train), ITEMS)
    expected = ranks_of(keys(train, histories), histories, targets, filter_seen)
    for users_at_once in (None, 1, 7):
        options = {"filter_seen": filter_seen, "users_at_once": users_at_once}
        assert baseline.ranks(Ragged.from_rows(histories), targets, **options).tolist() == expected


def test_scores_are_float32_of_all_items():
    histories = Ragged.from_rows([[], [3], [12]])
    for made in (Markov, ItemKnn, make_vsknn):
        scores = made(Ragged.from_rows(random_rows(0)), ITEMS).scores(histories)
        assert (scores.shape, scores.dtype) == ((3, ITEMS), np.float32)


def test_transitions_count_before_popularity_and_within_rows_alone():
    train = Ragged.from_rows([[0, 1, 2], [], [0, 1], [0, 2], [2, 2, 2, 2], [3, 0]])
    scores = Markov(train, 5).scores(Ragged.from_rows([[4, 0], [2], [4]]))
    assert np.argsort(-scores, kind="stable").tolist() == [[1, 2, 0, 3, 4], [2, 0, 1, 3, 4], [2, 0, 1, 3, 4]]


@pytest.mark.parametrize("size", [1, 5, 64])
def test_blocks_of_items_and_pairs_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch):
    train, (histories, _) = Ragged.from_rows(random_rows(5, users=60)), questions(5)
    whole = [made(train, ITEMS).scores(Ragged.from_rows(histories)) for made in (ItemKnn, make_vsknn)]
    for module in (item_knn, vsknn):
        monkeypatch.setattr(module, "_PAIRS_AT_ONCE", size)
    for made, scores in zip((ItemKnn, make_vsknn), whole, strict=True):
        np.testing.assert_array_equal(made(train, ITEMS).scores(Ragged.from_rows(histories)), scores)


def test_only_the_most_similar_items_are_kept():
    train = [[0, 1], [0, 1], [0, 2], [0, 3], [3], [2]]
    few, all_of_them = (ItemKnn(Ragged.from_rows(train), 5, count) for count in (2, 9))
    histories = Ragged.from_rows([[0]])
    assert (all_of_them.scores(histories)[0] > 0).tolist() == [False, True, True, True, False]
    assert (few.scores(histories)[0] > 0).tolist() == [False, True, True, False, False]  # of equal ones the lower id
    assert few.scores(histories)[0, 1] == np.float32(2 / np.sqrt(4 * 2))


def test_a_row_is_as_late_as_its_last_event():
    train, times = Ragged.from_rows([[1, 2], [], [3]]), np.array([5, 9, 7])
    assert last_times(train, times).tolist() == [9, np.iinfo(np.int64).min, 7]


def test_all_of_them_by_name():
    log = log_of(random_rows(4, longest=12))
    split = leave_one_out(log)
    options = {"cutoffs": (5, 10), "filter_seen": True}
    names = (*BASELINES, "recent:30")
    found = baseline_metrics(names, log, split, split.test_history, split.test_target, **options)
    assert tuple(found) == names
    for metrics in found.values():
        assert list(metrics) == list(ranking_metrics(np.array([1]), (5, 10)))
    assert found["recent"] == found["recent:30"] == found["popularity"]  # all within a minute
    again = leave_one_out(log)
    for part in ("train", "valid_history", "test_history"):  # what was given is as it was
        assert getattr(split, part).values.tolist() == getattr(again, part).values.tolist()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["svd"], r"expected some of popularity, recent, markov, itemknn, vsknn, ials \(or recent:DAYS\), got 'svd'"),
        ([""], "got ''"),
        (["recent:0"], "got 'recent:0'"),
        (["recent:"], "got 'recent:'"),
        (["markov", "markov"], "expected each once, got markov,markov"),
        ("markov", "expected a list of names, got 'markov'"),
        ([3], "got 3"),
    ],
)
def test_other_names_are_refused(names: Any, message: str):
    log = log_of(random_rows(4))
    split = leave_one_out(log)
    with pytest.raises(ConfigError, match=f"^baselines: .*{message}"):
        baseline_metrics(names, log, split, split.test_history, split.test_target)


def test_a_split_without_its_events_has_no_times():
    log = log_of(random_rows(4, longest=12))
    split = leave_one_out(log)
    for own in (replace(split, in_train=None), replace(split, in_train=np.ones(3, np.bool_))):
        for name in ("recent", "vsknn"):
            with pytest.raises(ConfigError, match=rf"^split: expected in_train of the {len(log.time)} events, got"):
                baseline_metrics([name], log, own, split.test_history, split.test_target)
        baseline_metrics(["popularity", "markov"], log, own, split.test_history, split.test_target)


def test_times_that_are_none_are_refused_before_others_are_made(monkeypatch: pytest.MonkeyPatch):
    log = log_of(random_rows(4, longest=12))
    log = replace(log, time=np.arange(len(log.time)))
    split = leave_one_out(log)
    monkeypatch.setattr(choices, "Markov", None)
    with pytest.raises(ConfigError, match=r"^baselines: recent expected times since 1970"):
        baseline_metrics(["markov", "recent"], log, split, split.test_history, split.test_target)


def test_targets_that_are_no_items_are_refused():
    histories = Ragged.from_rows([[1]])
    for made in (Markov, ItemKnn):
        with pytest.raises(ConfigError, match="targets: expected ids"):
            made(Ragged.from_rows([[1, 2]]), ITEMS).ranks(histories, np.array([ITEMS]))
