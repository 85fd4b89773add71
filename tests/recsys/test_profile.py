"""Where the seconds of a run go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cce_minus.recsys.run import profile as profile_module
from cce_minus.recsys.run.profile import Profile


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which moves when a test says so."""
    now = [100.0]
    monkeypatch.setattr(profile_module.time, "perf_counter", lambda: now[0])
    return now


def seconds(profile: Profile) -> dict[str, tuple[float, int]]:
    return {name: (part.seconds, part.count) for name, part in profile.table().items()}


def test_parts_inside_others_are_not_counted_twice(clock: list[float]):
    profile = Profile()
    clock[0] += 1
    for _ in range(2):
        with profile.part("outer"):
            clock[0] += 2
            with profile.part("inner"):
                clock[0] += 3
                with profile.part("outer"):  # the same part inside itself
                    clock[0] += 4
    assert seconds(profile) == {"outer": (12.0, 4), "inner": (6.0, 2), "other": (1.0, 1), "whole": (19.0, 1)}


def test_a_part_that_ends_in_an_error_counts(clock: list[float]):
    profile = Profile()

    def fail() -> None:
        with profile.part("outer"), profile.part("inner"):
            clock[0] += 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with profile.part("outer"):
        clock[0] += 1
    assert seconds(profile) == {"inner": (2.0, 1), "outer": (1.0, 2), "other": (0.0, 1), "whole": (3.0, 1)}


def test_waiting_for_items_is_a_part(clock: list[float]):
    profile, taken = Profile(), []

    def items():
        for number in range(3):
            clock[0] += 2
            yield None if number == 1 else number  # an item like others

    for item in profile.waits(items(), "waiting"):
        clock[0] += 5
        taken.append(item)
    assert taken == [0, None, 2]
    assert seconds(profile) == {"waiting": (6.0, 4), "other": (15.0, 1), "whole": (21.0, 1)}


def test_the_file_has_the_parts_and_the_table_their_names(clock: list[float], tmp_path: Path):
    profile = Profile()
    with profile.part("load"):
        clock[0] += 1.5
    clock[0] += 0.5
    shown = profile.write(tmp_path / "profile.json")
    parts = json.loads((tmp_path / "profile.json").read_text())["parts"]
    assert parts == [
        {"name": "load", "seconds": 1.5, "count": 1},
        {"name": "other", "seconds": 0.5, "count": 1},
        {"name": "whole", "seconds": 2.0, "count": 1},
    ]
    assert shown.splitlines()[0].split() == ["load", "1.500", "s", "1"]
