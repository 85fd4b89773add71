from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cce_minus.recsys import (
    ConfigError,
    DataError,
    Interactions,
    Ragged,
    Split,
    TrainConfig,
    by_session,
    global_temporal,
    leave_one_out,
    make_split,
)
from cce_minus.recsys.run.experiment import held_out


def interactions(*events: tuple[int, int, int]) -> Interactions:
    """Events (user, item, time), ids dense and given in the order of users and times."""
    user, item, time = (np.array(column) for column in zip(*events, strict=True))
    return Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        time.astype(np.int64),
        np.arange(user.max() + 1),
        np.arange(item.max() + 1),
        source="events.csv",
    )


def lists(rows: Ragged) -> list[list[int]]:
    return [row.tolist() for row in rows]


def sequence(user: int, items: list[int], start: int = 0) -> list[tuple[int, int, int]]:
    return [(user, item, start + place) for place, item in enumerate(items)]


def test_leave_one_out_by_hand():
    events = interactions(*sequence(0, [4, 2, 3, 2]), *sequence(1, [1]), *sequence(2, [0, 1, 2]), *sequence(3, [3, 3]))
    split = leave_one_out(events)
    assert lists(split.train) == [[4, 2], [1], [0], [3, 3]]
    assert lists(split.valid_history) == [[4, 2], [0]]
    assert split.valid_target.tolist() == [3, 1]
    assert lists(split.test_history) == [[4, 2, 3], [0, 1]]
    assert split.test_target.tolist() == [2, 2]
    assert split.num_items == 5
    assert split.test_target.dtype == np.int32


@pytest.mark.parametrize(
    "lengths", [[1, 1, 1], [2, 2], [3, 3]], ids=["one item", "two items", "nothing left to train on"]
)
def test_leave_one_out_without_a_part_names_the_file(lengths: list[int]):
    events = [event for user, length in enumerate(lengths) for event in sequence(user, list(range(length)))]
    with pytest.raises(DataError, match=r"events\.csv.*leave-one-out.*has no (training|test|validation)"):
        leave_one_out(interactions(*events))


def held_out_users(eligible: int, seed: int, count: int) -> set[int]:
    return set(np.random.default_rng(seed).choice(np.arange(eligible), size=count, replace=False).tolist())


# 20 events, so that quantile 0.8 puts the cutoff at event 16 of the sorted times, time 100. Users 0..3 have
# three past events each and users 4 and 5 two past ones. Item 9 happens only after the cutoff.
TEMPORAL = [
    *sequence(0, [0, 1, 2], start=10),
    (0, 3, 100),
    *sequence(1, [1, 2, 3], start=20),
    (1, 9, 101),
    *sequence(2, [2, 3, 0], start=30),
    (2, 9, 100),
    (2, 1, 102),
    *sequence(3, [3, 0, 1], start=40),
    *sequence(4, [0, 1], start=50),
    *sequence(5, [2, 3], start=60),
]


def test_global_temporal_by_hand():
    events = interactions(*TEMPORAL)
    split = global_temporal(events, quantile=0.8, valid_fraction=0.2, seed=0)
    (held_out,) = held_out_users(6, seed=0, count=1)
    past = {0: [0, 1, 2], 1: [1, 2, 3], 2: [2, 3, 0], 3: [3, 0, 1], 4: [0, 1], 5: [2, 3]}
    assert lists(split.train) == [items for user, items in past.items() if user != held_out]
    assert lists(split.valid_history) == [past[held_out][:-1]]
    assert split.valid_target.tolist() == past[held_out][-1:]
    # User 1's only later item is unknown; user 2's unknown item falls out of the history.
    assert lists(split.test_history) == [[0, 1, 2], [2, 3, 0]]
    assert split.test_target.tolist() == [3, 1]
    assert split.num_items == 10


def test_global_temporal_trains_only_on_the_past_of_users_not_held_out():
    rng = np.random.default_rng(1)
    events = [
        (user, item, time)
        for user in range(60)
        for item, time in zip(rng.integers(0, 150, 12), np.sort(rng.integers(0, 1000, 12)), strict=True)
    ]
    data = interactions(*events)
    split = global_temporal(data, quantile=0.7, valid_fraction=0.25, seed=3)
    cutoff = np.sort(data.time)[int(0.7 * len(data.time))]
    past = [data.item[(data.user == user) & (data.time < cutoff)].tolist() for user in range(60)]
    eligible = [user for user in range(60) if len(past[user]) >= 2]
    count = round(0.25 * len(eligible))
    held_out = set(np.random.default_rng(3).choice(eligible, size=count, replace=False).tolist())
    assert lists(split.train) == [past[user] for user in range(60) if user not in held_out and past[user]]
    known = set(split.train.values.tolist())
    expected = [[item for item in past[user] if item in known] for user in sorted(held_out)]
    expected = [items for items in expected if len(items) >= 2]
    assert lists(split.valid_history) == [items[:-1] for items in expected]
    assert split.valid_target.tolist() == [items[-1] for items in expected]
    assert set(split.test_target.tolist()) | set(split.test_history.values.tolist()) <= known


def test_global_temporal_events_at_the_cutoff_belong_to_the_future():
    events = [event for user in range(4) for event in [*sequence(user, [0, 1, 2]), (user, user % 3, 50)]]
    split = global_temporal(interactions(*events), quantile=0.9, valid_fraction=0.3)
    assert all(len(row) == 3 for row in split.train)
    assert split.test_target.tolist() == [0, 1, 2, 0]


def test_global_temporal_seed_chooses_the_validation_users():
    events = [event for user in range(50) for event in [*sequence(user, [user, 0, 1]), (user, 0, 90)]]
    data = interactions(*events)
    splits = [global_temporal(data, quantile=0.8, valid_fraction=0.1, seed=seed) for seed in (1, 1, 2)]
    trained = [split.train.values.tolist() for split in splits]
    assert trained[0] == trained[1] != trained[2]


def test_global_temporal_with_one_moment_has_no_past():
    events = interactions(*[(user, item, 7) for user in range(3) for item in range(4)])
    with pytest.raises(DataError, match=r"events\.csv.*global-temporal.*no training users"):
        global_temporal(events)


def test_global_temporal_with_users_who_never_return_has_no_test():
    events = interactions(*sequence(0, [0, 1, 2]), *sequence(1, [0, 1, 2]), (2, 0, 50))
    with pytest.raises(DataError, match="no test users"):
        global_temporal(events)


@pytest.mark.parametrize("option", ["quantile", "valid_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("split", [global_temporal, by_session])
def test_fractions_out_of_range_are_refused(split: Callable[..., Split], option: str, value: float):
    with pytest.raises(ConfigError, match=f"^{option}: expected a number between 0 and 1, got {value}$"):
        split(interactions(*TEMPORAL), **{option: value})


# Ten sessions in order of time 7, 0, 2, 9, 5, 1, 8, 3, 4, 6: 7 and 0 begin at one time, as do 3 and 4. With quantile
# 0.7 and valid fraction 0.3 the first seven are the past, the last two of which, 1 and 8, are held out. Items 6 and 7
# are in no training session.
SESSIONS = [
    *sequence(0, [0, 1, 2], start=2),
    *sequence(1, [3, 6, 1, 7], start=60),
    *sequence(2, [3, 0], start=20),
    *sequence(3, [6, 2, 4, 6], start=80),
    *sequence(4, [6, 0], start=80),
    *sequence(5, [4], start=40),
    *sequence(6, [7, 3, 6, 3], start=90),
    *sequence(7, [1, 5], start=1),
    *sequence(8, [5, 0], start=70),
    *sequence(9, [2, 2, 3, 1], start=30),
]


def test_sessions_by_hand():
    split = by_session(interactions(*SESSIONS), quantile=0.7, valid_fraction=0.3)
    assert lists(split.train) == [[0, 1, 2], [3, 0], [4], [1, 5], [2, 2, 3, 1]]
    assert lists(split.valid_history) == [[3], [5]]
    assert split.valid_target.tolist() == [1, 0]
    # Session 4 has one known item and no history.
    assert lists(split.test_history) == [[2], [3]]
    assert split.test_target.tolist() == [4, 3]
    assert split.num_items == 8
    assert split.valid_target.dtype == split.test_target.dtype == np.int32


def test_sessions_with_a_final_model():
    split = by_session(interactions(*SESSIONS), quantile=0.7, train_on_valid=True)
    assert lists(split.train) == [[0, 1, 2], [3, 6, 1, 7], [3, 0], [4], [1, 5], [5, 0], [2, 2, 3, 1]]
    assert len(split.valid_history) == len(split.valid_target) == 0
    # Items 6 and 7 are known now.
    assert lists(split.test_history) == [[6, 2, 4], [6], [7, 3, 6]]
    assert split.test_target.tolist() == [6, 0, 3]


@pytest.mark.parametrize("start", [0, 5])
def test_sessions_of_one_time_are_in_order_of_their_ids(start: int):
    events = [
        event for session in range(100) for event in sequence(session, [session % 3, 1, 0, 2][: 2 + session % 3], start)
    ]
    data = interactions(*events)
    split = by_session(data)
    rows = [data.item[data.user == session].tolist() for session in range(100)]
    # 90 are the past; round(0.05 * 90) = round(4.5) = 4 of them are held out.
    assert lists(split.train) == rows[:86]
    assert lists(split.valid_history) == [row[:-1] for row in rows[86:90]]
    assert split.valid_target.tolist() == [row[-1] for row in rows[86:90]]
    assert lists(split.test_history) == [row[:-1] for row in rows[90:]]
    assert split.test_target.tolist() == [row[-1] for row in rows[90:]]


def test_sessions_are_in_order_of_their_first_event():
    """Ids run against time; session 3 begins first and ends last."""
    events = interactions(
        *sequence(0, [0, 1], start=40),
        *sequence(1, [1, 0], start=30),
        *sequence(2, [0, 1], start=20),
        (3, 1, 10),
        (3, 0, 99),
    )
    split = by_session(events, quantile=0.75, valid_fraction=0.1)
    assert lists(split.train) == [[0, 1], [1, 0]]
    assert (lists(split.valid_history), split.valid_target.tolist()) == ([[1]], [0])
    assert (lists(split.test_history), split.test_target.tolist()) == ([[0]], [1])


@pytest.mark.parametrize(
    ("quantile", "part"),
    [(0.01, "training"), (0.1, "training"), (0.96, "test")],
    ids=["no past", "past held out", "no future"],
)
def test_sessions_without_a_part_name_the_file(quantile: float, part: str):
    with pytest.raises(
        DataError, match=rf"events\.csv: the split sessions \(quantile {quantile}\) has no {part} users"
    ):
        by_session(interactions(*SESSIONS), quantile=quantile)


def test_sessions_of_unknown_items_alone_leave_no_validation():
    events = interactions(*sequence(0, [0, 1]), *sequence(1, [2, 3]), *sequence(2, [1, 0]))
    with pytest.raises(DataError, match="no validation users"):
        by_session(events, quantile=0.67)


def test_make_split_by_name():
    events = interactions(*TEMPORAL)
    assert lists(make_split("leave-one-out", events).train) == lists(leave_one_out(events).train)
    assert lists(make_split("global-temporal", events).train) == lists(global_temporal(events).train)
    sessions = interactions(*SESSIONS)
    assert lists(make_split("sessions", sessions, quantile=0.7).train) == lists(
        by_session(sessions, quantile=0.7).train
    )
    with pytest.raises(ConfigError, match=r"split: expected one of leave-one-out, .*got 'random'"):
        make_split("random", events)


def test_users_that_are_ranked_are_chosen_by_the_seed():
    """Of both parts the same, each with its own history and target; others by another seed."""
    rng = np.random.default_rng(0)
    rows = Ragged.from_rows([np.full(rng.integers(1, 5), user, np.int32) for user in range(50)])
    users = np.arange(50, dtype=np.int32)
    split = Split(rows, rows, users, rows, users, num_items=50)

    def chosen(part: str = "test", **options: int) -> list[int]:
        history, target = held_out(TrainConfig(data="x", **options), split, part)  # type: ignore[arg-type]
        assert [set(row.tolist()) for row in history] == [{user} for user in target.tolist()]
        return target.tolist()

    some = chosen(test_users=12, seed=4)
    assert len(set(some)) == 12
    assert some == sorted(some) == chosen("valid", test_users=12, seed=4)
    assert some != chosen(test_users=12, seed=5)
    for stream in ([4, 0], 4):  # of the order of batches, and of splits
        assert some != sorted(np.random.default_rng(stream).choice(50, 12, replace=False).tolist())
    for test_users in (0, 50, 60):
        assert chosen(test_users=test_users) == users.tolist()


def test_without_a_split_every_event_is_trained_on():
    events = interactions((0, 1, 0), (0, 2, 1), (1, 0, 0), (1, 0, 3), (1, 2, 4))
    split = make_split("none", events)
    assert lists(split.train) == [[1, 2], [0, 0, 2]]
    for part in (split.valid_history, split.valid_target, split.test_history, split.test_target):
        assert len(part) == 0
    with pytest.raises(DataError, match="the split none has no training users"):
        make_split("none", interactions((0, 0, 0), (1, 1, 0)))
