"""Baselines against rankings by brute force, and what they say of logs that they cannot serve."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import (
    BASELINES,
    ConfigError,
    Interactions,
    Ragged,
    baseline_metrics,
    leave_one_out,
    make_split,
    ranking_metrics,
)
from cce_minus.recsys.baselines import item_knn
from cce_minus.recsys.baselines.ials import Ials, fit_ials
from cce_minus.recsys.baselines.item_knn import ItemKnn
from cce_minus.recsys.baselines.markov import Markov
from cce_minus.recsys.baselines.popular import recent
from cce_minus.recsys.protocol.splits import SPLITS

ITEMS = 14
DAY = 86_400
START = 1_700_000_000
Rows = list[list[int]]


def log_of(rows: Rows, times: list[list[int]] | None = None, **fields: Any) -> Interactions:
    lengths = [len(row) for row in rows]
    times = times or [[START + place for place in range(length)] for length in lengths]
    return Interactions(
        np.repeat(np.arange(len(rows), dtype=np.int32), lengths),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(times).astype(np.int64),
        np.arange(len(rows)),
        np.arange(fields.pop("num_items", ITEMS)),
        **fields,
    )


def random_rows(seed: int, users: int = 30, longest: int = 9) -> Rows:
    """With ties in every count, items that come again, and items 12 and 13 nowhere."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, ITEMS - 2, rng.integers(0, longest)).tolist() for _ in range(users)]


def questions(seed: int) -> tuple[Rows, np.ndarray]:
    """Histories, some empty and some of items without training events, and targets of all kinds."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, ITEMS, rng.integers(0, 7)).tolist() for _ in range(40)]
    rows[:4] = [[], [12], [13, 12], [3, 3, 13]]
    return rows, rng.integers(0, ITEMS, len(rows))


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


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("made", "keys"), [(Markov, markov_keys), (ItemKnn, knn_keys)])
def test_ranks_by_brute_force(made: Any, keys: Any, seed: int, filter_seen: bool):
    train, (histories, targets) = random_rows(seed), questions(seed)
    baseline = made(Ragged.from_rows(train), ITEMS)
    expected = ranks_of(keys(train, histories), histories, targets, filter_seen)
    for users_at_once in (None, 1, 7):
        options = {"filter_seen": filter_seen, "users_at_once": users_at_once}
        assert baseline.ranks(Ragged.from_rows(histories), targets, **options).tolist() == expected


def test_scores_are_float32_of_all_items():
    histories = Ragged.from_rows([[], [3], [12]])
    for made in (Markov, ItemKnn):
        scores = made(Ragged.from_rows(random_rows(0)), ITEMS).scores(histories)
        assert (scores.shape, scores.dtype) == ((3, ITEMS), np.float32)


def test_transitions_count_before_popularity_and_within_rows_alone():
    train = Ragged.from_rows([[0, 1, 2], [], [0, 1], [0, 2], [2, 2, 2, 2], [3, 0]])
    scores = Markov(train, 5).scores(Ragged.from_rows([[4, 0], [2], [4]]))
    assert np.argsort(-scores, kind="stable").tolist() == [[1, 2, 0, 3, 4], [2, 0, 1, 3, 4], [2, 0, 1, 3, 4]]


@pytest.mark.parametrize("size", [1, 5, 64])
def test_blocks_of_items_and_pairs_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch):
    train, (histories, _) = Ragged.from_rows(random_rows(5, users=60)), questions(5)
    whole = ItemKnn(train, ITEMS).scores(Ragged.from_rows(histories))
    monkeypatch.setattr(item_knn, "_PAIRS_AT_ONCE", size)
    np.testing.assert_array_equal(ItemKnn(train, ITEMS).scores(Ragged.from_rows(histories)), whole)


def test_only_the_most_similar_items_are_kept():
    train = [[0, 1], [0, 1], [0, 2], [0, 3], [3], [2]]
    few, all_of_them = (ItemKnn(Ragged.from_rows(train), 5, count) for count in (2, 9))
    histories = Ragged.from_rows([[0]])
    assert (all_of_them.scores(histories)[0] > 0).tolist() == [False, True, True, True, False]
    assert (few.scores(histories)[0] > 0).tolist() == [False, True, True, False, False]  # of equal ones the lower id
    assert few.scores(histories)[0, 1] == np.float32(2 / np.sqrt(4 * 2))


@pytest.mark.parametrize(("unit", "second"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9), (None, 1)])
@pytest.mark.parametrize("days", [1, 7, 30])
def test_recent_counts_the_last_days_of_the_training_events(unit: str | None, second: int, days: int):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, ITEMS, 12).tolist() for _ in range(20)]
    times = [np.sort(START + rng.integers(0, 40 * DAY, 12)).tolist() for _ in rows]
    log = log_of(rows, [[time * second for time in row] for row in times], time_unit=unit)
    last = max(row[-3] for row in times)
    counts = Counter(
        item
        for row, of_row in zip(rows, times, strict=True)
        for item, time in zip(row[:-2], of_row, strict=False)
        if time > last - days * DAY
    )
    histories, targets = questions(1)
    expected = ranks_of([[counts[item] for item in range(ITEMS)]] * len(histories), histories, targets, True)
    found = recent(log, leave_one_out(log), days).ranks(Ragged.from_rows(histories), targets, filter_seen=True)
    assert found.tolist() == expected


@pytest.mark.parametrize("second", [10**3, 10**6, 10**9])
def test_numbers_are_times_by_their_size(second: int):
    rows = [[place % ITEMS for place in range(first, first + 9)] for first in range(9)]
    times = [[START + (first + place) * DAY for place in range(9)] for first in range(9)]
    logs = [log_of(rows, [[time * each for time in row] for row in times]) for each in (1, second)]
    targets = np.arange(ITEMS)
    nothing = Ragged.from_rows([[]] * ITEMS)
    first, other = (recent(log, leave_one_out(log), 5).ranks(nothing, targets).tolist() for log in logs)
    assert first == other


def test_places_in_a_history_have_no_days():
    log = log_of(random_rows(0), [list(range(len(row))) for row in random_rows(0)])
    with pytest.raises(
        ConfigError, match=r"recent expected times since 1970, .* got numbers from 0 to .; leave it out"
    ):
        recent(log, leave_one_out(log))


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("train_on_valid", [False, True])
def test_a_split_tells_which_events_it_trains_on(name: str, train_on_valid: bool):
    rng = np.random.default_rng(0)
    rows = [row for row in random_rows(1, users=40, longest=12) if row]
    log = log_of(rows, [np.sort(rng.integers(0, 99, len(row))).tolist() for row in rows])
    split = make_split(name, log, **({} if name == "none" else {"train_on_valid": train_on_valid}))
    assert split.in_train is not None
    assert split.in_train.shape == log.item.shape
    assert log.item[split.in_train].tolist() == split.train.values.tolist()


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
        (["svd"], r"expected some of popularity, recent, markov, itemknn, ials \(or recent:DAYS\), got 'svd'"),
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


def test_without_the_package_ials_says_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "implicit" else found(name))
    log = log_of(random_rows(4))
    split = leave_one_out(log)
    arguments = (log, split, split.test_history, split.test_target)
    with pytest.raises(ConfigError, match=r"ials expected the package implicit, .* 'cce-minus\[baselines\]'"):
        baseline_metrics(["popularity", "ials"], *arguments)
    assert baseline_metrics(["popularity"], *arguments)


def test_targets_that_are_no_items_are_refused():
    histories = Ragged.from_rows([[1]])
    for made in (Markov, ItemKnn):
        with pytest.raises(ConfigError, match="targets: expected ids"):
            made(Ragged.from_rows([[1, 2]]), ITEMS).ranks(histories, np.array([ITEMS]))
