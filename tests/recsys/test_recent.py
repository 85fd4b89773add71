"""Popularity of the last days, and which events a split trains on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from cce_minus.recsys import ConfigError, Ragged, leave_one_out, make_split
from cce_minus.recsys.baselines.popular import recent
from cce_minus.recsys.protocol.splits import SPLITS

from tests.recsys.small_logs import DAY, ITEMS, START, log_of, questions, random_rows
from tests.recsys.test_baselines import ranks_of


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
