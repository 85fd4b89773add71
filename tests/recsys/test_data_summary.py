"""What a run says of its data."""

from __future__ import annotations

from pathlib import Path

import pytest
from cce_minus.recsys import TrainConfig, prepare_data
from cce_minus.recsys.run.data_summary import data_summary


def future(share: str) -> list[str]:
    return [
        f"  {share} of the training events happened after the median tested one: with",
        "  leave-one-out a model knows the future, with --split global-temporal not",
    ]


@pytest.mark.parametrize(
    ("times", "span"),
    [
        (range(6), "time 0 to time 5"),
        ([f"2024-01-0{day}" for day in range(1, 7)], "2024-01-01 00:00:00 to 2024-01-06 00:00:00"),
        ([f"2024-01-0{day}T10:00:01.5+02:00" for day in range(1, 7)], "2024-01-01 08:00:01 to 2024-01-06 08:00:01"),
    ],
)
def test_a_log_is_told_in_lines(tmp_path: Path, times: list[str], span: str):
    events = zip("aaaabb", "uvwxuv", times, strict=True)
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in events))
    told = data_summary(*prepare_data(TrainConfig(data=str(tmp_path / "log.csv"))), "leave-one-out")
    assert told.splitlines() == [
        "data: 6 events of 2 users among 4 items",
        "  events a user: 2 to 4, half at most 3, nine in ten at most 4",
        f"  from {span}",
        "  2 users to train on, 1 to validate, 1 to test",
        *future("50%"),
    ]
    assert max(map(len, told.splitlines())) <= 80


def test_items_without_events_and_a_single_event_are_counted(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"1,{i},{i}\n" for i in range(1234)))
    (tmp_path / "items.csv").write_text("item_id\n" + "".join(f"{i}\n" for i in range(2000)))
    config = TrainConfig(data=str(tmp_path / "log.csv"), items=str(tmp_path / "items.csv"))
    assert data_summary(*prepare_data(config), config.split).startswith(
        "data: 1,234 events of 1 user among 2,000 items\n"
    )


@pytest.mark.parametrize("split", ["leave-one-out", "global-temporal"])
@pytest.mark.parametrize("is_apart", [False, True])
def test_training_on_the_future_is_told(tmp_path: Path, split: str, is_apart: bool):
    """Users one after the other, or all at the same times."""
    events = [(user, item, item + 10 * user * is_apart) for user in range(20) for item in range(10)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in events))
    told = data_summary(*prepare_data(TrainConfig(data=str(tmp_path / "log.csv"))), split).splitlines()
    # the median test is at 104: later are the 8 events of each of the users 11 to 19, and three of user 10, of 160
    assert told[4:] == (future("47%") if is_apart and split == "leave-one-out" else [])
    assert max(map(len, told)) <= 80
