"""No held-out event is trained on, whatever the data: properties of every split."""

from __future__ import annotations

import numpy as np
import pytest
from cce_minus.recsys import Interactions, Ragged, by_session, global_temporal, leave_one_out


def unique_events(seed: int) -> Interactions:
    """Random events in which no user has an item twice."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, 40)
    user = np.repeat(np.arange(40), lengths)
    time = rng.integers(0, 300, len(user))
    order = np.lexsort((time, user))
    item = np.concatenate([rng.permutation(25)[:length] for length in lengths])
    item = np.unique(item, return_inverse=True)[1]
    return Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        time[order].astype(np.int64),
        np.arange(40),
        np.arange(item.max() + 1),
    )


def users_of(events: Interactions, rows: Ragged, cutoff: int) -> list[int]:
    """The users whose events before the cutoff are the rows, which keep the users' order; runs out of users for any
    other row."""
    users = iter(range(40))
    return [
        next(user for user in users if np.array_equal(events.item[(events.user == user) & (events.time < cutoff)], row))
        for row in rows
    ]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("train_on_valid", [False, True])
def test_leave_one_out_trains_on_nothing_held_out(seed: int, train_on_valid: bool):
    events = unique_events(seed)
    split = leave_one_out(events, train_on_valid=train_on_valid)
    evaluated = iter(range(len(split.test_target)))
    for user, row in enumerate(split.train):
        whole = events.item[events.user == user]
        if len(whole) < 3:
            np.testing.assert_array_equal(row, whole)
            continue
        place = next(evaluated)
        np.testing.assert_array_equal(np.append(split.test_history[place], split.test_target[place]), whole)
        # A user's items are distinct: an item that is not in the row was not trained on for that user.
        assert split.test_target[place] not in row
        if train_on_valid:
            np.testing.assert_array_equal(row, whole[:-1])
        else:
            assert split.valid_target[place] not in row
            np.testing.assert_array_equal(np.append(split.valid_history[place], split.valid_target[place]), whole[:-1])
            np.testing.assert_array_equal(row, split.valid_history[place])
    if train_on_valid:
        assert len(split.valid_target) == len(split.valid_history) == 0


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("train_on_valid", [False, True])
def test_global_temporal_trains_on_nothing_held_out(seed: int, train_on_valid: bool):
    events = unique_events(seed)
    split = global_temporal(events, quantile=0.8, valid_fraction=0.2, train_on_valid=train_on_valid)
    cutoff = np.sort(events.time)[int(0.8 * len(events.time))]
    trained = users_of(events, split.train, cutoff)
    past_users = set(events.user[events.time < cutoff].tolist())
    if train_on_valid:
        assert set(trained) == past_users
        assert len(split.valid_target) == 0
    else:
        held_out = past_users - set(trained)
        assert len(held_out) >= len(split.valid_target) >= 1
        known = set(split.train.values.tolist())
        pasts = [events.item[(events.user == user) & (events.time < cutoff)] for user in sorted(held_out)]
        pasts = [[item for item in past if item in known] for past in pasts]
        assert split.valid_target.tolist() == [past[-1] for past in pasts if len(past) >= 2]
    # The training rows hold past events alone, and every test target lies in the future.
    known = np.isin(events.item, split.train.values)
    targets = []
    for user in range(40):
        mine = np.flatnonzero((events.user == user) & known)
        if len(mine) >= 2 and events.time[mine[-1]] >= cutoff:
            targets.append(events.item[mine[-1]])
    assert split.test_target.tolist() == targets


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("train_on_valid", [False, True])
def test_sessions_trains_on_nothing_held_out(seed: int, train_on_valid: bool):
    events = unique_events(seed)
    split = by_session(events, quantile=0.8, valid_fraction=0.2, train_on_valid=train_on_valid)
    order = sorted(range(40), key=lambda user: (events.time[events.user == user].min(), user))
    trained = sorted(order[: 32 if train_on_valid else 26])
    rows = {user: events.item[events.user == user].tolist() for user in range(40)}
    assert [row.tolist() for row in split.train] == [rows[user] for user in trained]
    known = {item for user in trained for item in rows[user]}

    def evaluated(users: list[int]) -> list[list[int]]:
        kept = ([item for item in rows[user] if item in known] for user in sorted(users))
        return [row for row in kept if len(row) >= 2]

    parts = {"valid": order[len(trained) : 32], "test": order[32:]}
    for part, users in parts.items():
        histories, targets = getattr(split, f"{part}_history"), getattr(split, f"{part}_target")
        got = [[*history.tolist(), target] for history, target in zip(histories, targets, strict=True)]
        assert got == evaluated(users)
