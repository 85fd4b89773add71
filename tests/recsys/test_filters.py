"""Filters of events against tables made by hand and against a plain definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import (
    ConfigError,
    DataError,
    Interactions,
    TrainConfig,
    keep_frequent,
    keep_rated,
    prepare_data,
    read_interactions,
)
from cce_minus.recsys.data.filters import drop_repeated

# Item x has one event; without it user c has a single one and leaves; without c, item z has a single one and leaves.
EVENTS = """user_id,item_id,timestamp,rating
a,w,1,5
a,y,2,4
a,w,3,3.5
b,w,1,1
b,y,2,5
c,x,1,5
c,z,2,2
d,z,1,4
d,y,2,4
d,w,3,3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text(EVENTS)
    return path


def named(events: Interactions) -> list[tuple[str, str, int]]:
    users, items = events.user_labels[events.user], events.item_labels[events.item]
    return list(zip(users.tolist(), items.tolist(), events.time.tolist(), strict=True))


def assert_dense(events: Interactions) -> None:
    assert sorted(set(events.user.tolist())) == list(range(events.num_users))
    assert sorted(set(events.item.tolist())) == list(range(events.num_items))
    assert events.user.dtype == events.item.dtype == np.int32


def test_repeated_events_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp,rating\nb,w,1,1\na,w,2,2\na,y,1,3\na,w,2,4\nb,w,1,5\na,w,3,6\nb,w,1,7\n")
    whole = read_interactions(path, rating_column="rating")
    events = drop_repeated(whole)
    assert named(events) == [("a", "y", 1), ("a", "w", 2), ("a", "w", 3), ("b", "w", 1)]
    assert events.rating is not None
    assert events.rating.tolist() == [3, 2, 6, 1]  # the first of them
    assert caplog.messages[1:] == [f"{path}: left out 3 of 7 events, which repeat another"]
    assert drop_repeated(events) is events
    path.write_text(EVENTS + EVENTS.partition("\n")[2])
    sizes = [len(prepare_data(TrainConfig(data=str(path), drop_duplicates=drops))[0].item) for drops in (False, True)]
    assert sizes == [20, 10]


def test_ratings_by_hand(path: Path):
    events = keep_rated(read_interactions(path, rating_column="rating"), 4)
    assert named(events) == [("a", "w", 1), ("a", "y", 2), ("b", "y", 2), ("c", "x", 1), ("d", "z", 1), ("d", "y", 2)]
    assert events.rating is not None
    assert events.rating.tolist() == [5, 4, 5, 5, 4, 4]
    assert_dense(events)


def test_frequencies_are_repeated_until_stable(path: Path):
    events = keep_frequent(read_interactions(path), min_item_events=2, min_user_events=2)
    assert named(events) == [
        ("a", "w", 1), ("a", "y", 2), ("a", "w", 3), ("b", "w", 1), ("b", "y", 2), ("d", "y", 2), ("d", "w", 3),
    ]  # fmt: skip
    assert_dense(events)


@pytest.mark.parametrize(("items", "users"), [(1, 1), (5, 1), (1, 4), (5, 3), (7, 6)])
def test_frequencies_are_the_largest_core(items: int, users: int):
    rng = np.random.default_rng(items)
    pairs = np.unique(np.stack([rng.integers(0, 60, 400), rng.geometric(0.05, 400)], axis=1), axis=0)
    user, item = (np.unique(column, return_inverse=True)[1].astype(np.int32) for column in pairs.T)
    time = np.arange(len(user), dtype=np.int64)
    events = Interactions(user, item, time, np.arange(user.max() + 1), np.arange(item.max() + 1))
    kept = list(zip(user.tolist(), item.tolist(), strict=True))
    while True:  # one event at a time, in no order of filters
        short = [
            (u, i) for u, i in kept if sum(v == u for v, _ in kept) < users or sum(j == i for _, j in kept) < items
        ]
        if not short:
            break
        kept.remove(short[0])
    if not kept:
        with pytest.raises(DataError):
            keep_frequent(events, min_item_events=items, min_user_events=users)
        return
    left = keep_frequent(events, min_item_events=items, min_user_events=users)
    assert list(zip(left.user_labels[left.user].tolist(), left.item_labels[left.item].tolist(), strict=True)) == kept
    assert_dense(left)


def test_a_filter_that_leaves_nothing_is_named(path: Path):
    events = read_interactions(path, rating_column="rating")
    with pytest.raises(
        DataError, match=r"events\.csv: min_rating = 6 leaves none of 10 events; the highest rating is 5\.0"
    ):
        keep_rated(events, 6)
    with pytest.raises(DataError, match=r"events\.csv: min_item_events = 5 leaves none of 10 events"):
        keep_frequent(events, min_item_events=5)
    with pytest.raises(DataError, match=r"events\.csv: min_user_events = 4 leaves none of 10 events"):
        keep_frequent(events, min_user_events=4)


def test_unusable_arguments_are_named(path: Path):
    with pytest.raises(
        ConfigError, match=r"min_rating: expected events with ratings, got .*events\.csv read without them"
    ):
        keep_rated(read_interactions(path), 3)
    with pytest.raises(ConfigError, match="min_rating: expected a finite number"):
        keep_rated(read_interactions(path, rating_column="rating"), float("nan"))
    with pytest.raises(ConfigError, match="min_user_events: expected a positive integer, got 0"):
        keep_frequent(read_interactions(path), min_user_events=0)


def test_unusable_rating_columns_are_named(path: Path):
    with pytest.raises(DataError, match="no column 'stars'"):
        read_interactions(path, rating_column="stars")
    with pytest.raises(DataError, match="ratings must be a column of their own, got 'timestamp' twice"):
        read_interactions(path, rating_column="timestamp")
    path.write_text("user_id,item_id,timestamp,rating\n1,2,3,good\n")
    with pytest.raises(DataError, match="column 'rating' must hold numbers, got string"):
        read_interactions(path, rating_column="rating")
    path.write_text("user_id,item_id,timestamp,rating\n1,2,3,4\n1,2,3,\n")
    with pytest.raises(DataError, match="column 'rating' has 1 empty values"):
        read_interactions(path, rating_column="rating")


def test_prepare_data_filters_before_it_splits(path: Path, tmp_path: Path):
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title\nw,Water\ny,Yarn\n")
    config = TrainConfig(data=str(path), titles=str(titles), min_rating=2, min_item_events=2, min_user_events=2)
    events, split = prepare_data(config)
    # The rating takes b's event of w, and leaves b one event; x has one event, so that c is left with z alone, and z
    # with d.
    assert named(events) == [("a", "w", 1), ("a", "y", 2), ("a", "w", 3), ("d", "y", 2), ("d", "w", 3)]
    assert events.item_titles == ["Water", "Yarn"]
    assert split.num_items == 2
    assert split.test_target.tolist() == [0]
