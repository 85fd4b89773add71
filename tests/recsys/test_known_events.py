"""The events of a log that are of a model's items."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cce_minus.recsys import DataError
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.ids import id_column
from cce_minus.recsys.data.interactions import Interactions, from_table
from cce_minus.recsys.data.known_events import in_catalog


def log_of(users: list[Any], items: list[Any]) -> Interactions:
    columns = {"user": users, "item": items}
    table = {
        name: id_column(pa.chunked_array([pa.array(values)]), as_written=False, source="", name=name)
        for name, values in columns.items()
    }
    table["time"] = pa.chunked_array([pa.array(range(len(users)))])
    return from_table(
        pa.table(table), source="new.csv", user_column="user", item_column="item", time_column="time", sort_notice=False
    )


def test_other_items_are_left_out_with_one_warning(caplog: pytest.LogCaptureFixture):
    catalog = Catalog(np.array(["a", "b", "c", "d"], object), ["A", "B", "C", "D"])
    log = log_of([1, 1, 2, 3, 3, 3, 1], ["d", "x", "x", "a", "y", "d", "b"])
    with caplog.at_level(logging.WARNING):
        found = in_catalog(log, catalog, source="the run")
    assert [record.getMessage() for record in caplog.records] == [
        "new.csv: left out 3 of 7 events, of 2 items that the run does not know ('x', 'y'); 1 of 3 users have no other"
    ]
    assert found.user_labels.tolist() == [1, 3]
    assert found.user.tolist() == [0, 0, 1, 1]
    assert found.item.tolist() == [3, 1, 0, 3]
    assert found.time.tolist() == [0, 6, 3, 5]
    assert (found.item_labels.tolist(), found.item_titles) == (["a", "b", "c", "d"], ["A", "B", "C", "D"])
    assert (found.user.dtype, found.item.dtype, found.num_items) == (np.int32, np.int32, 4)


def test_missing_items_are_no_matter(caplog: pytest.LogCaptureFixture):
    log = log_of(["u", "v"], [30, 10])
    with caplog.at_level(logging.WARNING):
        found = in_catalog(log, Catalog(np.array([10, 20, 30])), source="the run")
    assert (found.item.tolist(), found.num_items, caplog.records) == ([2, 0], 3, [])
    assert in_catalog(found, Catalog(np.array([10, 20, 30])), source="the run") is found


def test_items_match_by_what_they_say():
    log = log_of(["u", "u"], ["7", "new"])  # one more item makes the column a text
    assert in_catalog(log, Catalog(np.array([5, 7])), source="the run").item.tolist() == [1]


def test_a_log_of_other_items_alone_is_refused():
    with pytest.raises(DataError, match=r"expected events of the 2 items of the run, got none in new.csv, .*: 8, 9$"):
        in_catalog(log_of([1, 1], [8, 9]), Catalog(np.array([5, 7])), source="the run")


def test_others_that_only_look_like_its_integers_are_left_out():
    for label in ("1_000", "+7", "007"):  # 7 is there as 7 is written
        log = log_of(["u", "u"], ["7", label])
        assert in_catalog(log, Catalog(np.array([5, 7, 1000])), source="the run").item.tolist() == [1]


def test_integers_that_the_log_writes_otherwise_are_refused():
    with pytest.raises(DataError, match=r"ids such as 007 in CSV were read as integers has to be trained again"):
        in_catalog(log_of([1, 1], ["007", "5"]), Catalog(np.array([5, 7])), source="the run")
