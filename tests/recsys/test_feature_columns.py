"""Columns of item features in another run's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.feature_columns import column_places, read_columns, write_columns
from cce_minus.recsys.run.side_information import VECTOR, SideInformation

PLACES = np.array([-1, 0, 2, 1, 4], np.int32)


def test_names_come_back_and_others_are_named(tmp_path: Path):
    path = tmp_path / "features.json"
    write_columns(path, ["genre=a", f"{VECTOR}0"])
    assert read_columns(path) == ["genre=a", f"{VECTOR}0"]
    for damaged in (b"", b"[1]", b"{}", b"\xff", b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"features\.json: expected the names of a run's item features"):
            read_columns(path)
    path.unlink()
    with pytest.raises(ConfigError, match=r"features\.json: expected the names"):
        read_columns(path)


def test_categories_are_found_by_their_names():
    side = SideInformation(np.zeros((5, 3), np.float32), None, ("genre=c", "genre=a", "year=a"))
    before = np.zeros((5, 3), np.float32)
    assert column_places(["genre=a", "genre=b", "genre=c"], before, PLACES, side).tolist() == [1, -1, 0]


def test_numbers_that_have_moved_start_anew(caplog: pytest.LogCaptureFixture):
    before = np.array([[-1.5, 0], [-0.5, 0], [0, 0], [0.5, 1], [1.5, 1]], np.float32)
    now = np.zeros((5, 2), np.float32)
    now[PLACES[1:]] = before[1:]
    names = ["price", "size, bin 1 of 2"]
    for shift, expected in ((0.05, [0, 1]), (0.5, [-1, 1])):
        moved = now + np.array([shift, 0], np.float32)
        assert column_places(names, before, PLACES, SideInformation(moved, None, tuple(names))).tolist() == expected
    assert caplog.messages == ["the numbers of 'price' have moved: its projection starts anew"]
    assert column_places(names, before, PLACES, SideInformation(1 - now, None, tuple(names))).tolist() == [-1, -1]


def test_columns_of_vectors_that_mean_something_else_are_refused():
    """A scale and a mean that have moved are the same column; a sign that has changed, or another vector, is not."""
    before = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    now = np.zeros((5, 2), np.float32)
    now[PLACES[1:]] = 0.5 * before[1:] + 3
    names = [f"{VECTOR}0", f"{VECTOR}1"]
    assert column_places(names, before, PLACES, SideInformation(now, None, tuple(names))).tolist() == [0, 1]
    turned = now * np.array([1, -1], np.float32)
    with pytest.raises(ConfigError, match=r"^item_vectors: expected columns that mean what .* vector 1 of 2"):
        column_places(names, before, PLACES, SideInformation(turned, None, tuple(names)))
    with pytest.raises(ConfigError, match=r"^item_vectors: expected 2 columns as in the run of from_run, got 1"):
        column_places(names, before, PLACES, SideInformation(now[:, :1], None, (f"{VECTOR}0",)))
