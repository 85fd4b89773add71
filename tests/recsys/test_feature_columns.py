"""Columns of item features in another run's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.feature_columns import column_places, read_columns, write_columns
from cce_minus.recsys.run.side_information import SideInformation

PLACES = np.array([-1, 0, 2, 1, 4], np.int32)


def test_names_come_back_and_others_are_named(tmp_path: Path):
    path = tmp_path / "features.json"
    write_columns(path, ["genre=a", "vector 0"])
    assert read_columns(path) == ["genre=a", "vector 0"]
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


def test_columns_of_vectors_that_mean_something_else_are_refused():
    """A scale and a mean that have moved are the same column; a sign that has changed, or another vector, is not."""
    before = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    now = np.zeros((5, 2), np.float32)
    now[PLACES[1:]] = 0.5 * before[1:] + 3
    names = ["vector 0", "vector 1"]
    assert column_places(names, before, PLACES, SideInformation(now, None, tuple(names))).tolist() == [0, 1]
    turned = now * np.array([1, -1], np.float32)
    with pytest.raises(ConfigError, match=r"^item_vectors: expected columns that mean what .* vector 1 of 2"):
        column_places(names, before, PLACES, SideInformation(turned, None, tuple(names)))
    with pytest.raises(ConfigError, match=r"^item_vectors: expected 2 columns as in the run of from_run, got 1"):
        column_places(names, before, PLACES, SideInformation(now[:, :1], None, ("vector 0",)))
