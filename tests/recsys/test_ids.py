"""Ids are names: read as they are written, and found in joined tables by what they say."""

from __future__ import annotations

import datetime
import json
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import DataError, Interactions, read_interactions
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.ids import dense_ids
from cce_minus.recsys.data.item_features import read_categories
from cce_minus.recsys.data.item_vectors import read_vectors
from cce_minus.recsys.serving.requests import read_requests, user_requests


def write(path: Path, items: Any, **columns: Any) -> Path:
    """Items, and columns with a value for each: as Parquet with types, or as CSV or TSV, written as they are."""
    columns = {"item_id": items, **columns}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        rows = zip(*columns.values(), strict=True)
        path.write_text("".join(mark.join(map(str, row)) + "\n" for row in (columns, *rows)), encoding="utf-8")
    return path


def events(path: Path, items: Any) -> Interactions:
    """One event of one user with each item."""
    return read_interactions(write(path, items, user_id=["u"] * len(items), timestamp=list(range(len(items)))))


def labels(path: Path, items: Any) -> list[Any]:
    """The items as they were read, in the order of the file."""
    read = events(path, items)
    return read.item_labels[read.item].tolist()


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize(
    "written",
    [
        ["00123", "0123", "123"],
        ["0x1F", "31"],
        ["1E5", "100000"],
        ["1.0", "1"],
        ["+7", "7"],
        [" 12", "12"],
        ["-0", "0"],
        ["true", "false"],
        ["NA", "null", "NaN", "None", "#N/A"],
        ["2024-01-02", "2024-01-02 00:00:00"],
        ["10:30", "10:30:00"],
        ["9223372036854775808", "9223372036854775807"],
        ["é", "e\u0301", "\u0667"],
    ],
    ids=lambda written: written[0],
)
def test_text_stays_what_is_written(tmp_path: Path, ending: str, written: list[str]):
    assert labels(tmp_path / f"events.{ending}", written) == written


@pytest.mark.parametrize("written", [["7", "-3", "0", "100000"], ["9223372036854775807", "-9223372036854775808"]])
def test_plain_integers_are_integers(tmp_path: Path, written: list[str]):
    read = events(tmp_path / "events.csv", written)
    assert read.item_labels.dtype == np.int64
    assert read.item_labels.tolist() == sorted(map(int, written))
    assert labels(tmp_path / "quoted.csv", [f'"{item}"' for item in written]) == [int(item) for item in written]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["007", "7"], ["007", "7"]),
        (["7", "8"], ["7", "8"]),
        (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
        (pa.array(["b", "a"], pa.string_view()), ["b", "a"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array([300, 7], pa.int32()).dictionary_encode(), [300, 7]),
        (pa.array([200, 7], pa.uint8()), [200, 7]),
        (pa.array([2**63 - 1, 7], pa.uint64()), [2**63 - 1, 7]),
        (pa.array([2**64 - 1, 7], pa.uint64()), [str(2**64 - 1), "7"]),
        (pa.array([Decimal(70), Decimal(7)], pa.decimal128(38, 0)), [70, 7]),
        (pa.array([Decimal(70), Decimal(7)], pa.decimal32(5, 0)), [70, 7]),
        (pa.array([Decimal(2**70), Decimal(7)], pa.decimal128(38, 0)), [str(2**70), "7"]),
    ],
    ids=lambda items: str(getattr(items, "type", items)),
)
def test_types_of_parquet(tmp_path: Path, items: Any, expected: list[Any]):
    assert labels(tmp_path / "events.parquet", items) == expected


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([7.0, 8.0], "must hold integers or text, got double"),
        ([True, False], "must hold integers or text, got bool"),
        ([b"a", b"b"], "must hold integers or text, got binary"),
        ([datetime.datetime(2024, 1, 2)], "must hold integers or text, got timestamp"),
        ([Decimal("1.5")], "must hold integers or text, got decimal"),
        ([["a"]], "must hold integers or text, got list"),
        ([None, "a"], "has 1 empty values, the first in row 1"),
        (pa.nulls(2), "has 2 empty values, the first in row 1"),
        (["a", ""], "has 1 empty values, the first in row 2"),
    ],
    ids=str,
)
def test_what_is_no_id_is_refused_in_every_table(tmp_path: Path, items: Any, message: str):
    with pytest.raises(DataError, match=f"column 'item_id' {message}"):
        events(tmp_path / "events.parquet", items)
    path = write(tmp_path / "items.parquet", items, title=["x"] * len(items), vector=[[1.0]] * len(items))
    catalog = Catalog(np.array([1, 7]))
    with pytest.raises(DataError, match=f"column 'item_id' {message}"):
        read_categories(path, catalog, item_column="item_id", columns=["title"])
    with pytest.raises(DataError, match=f"column 'item_id' {message}"):
        read_vectors(path, catalog, item_column="item_id")


def test_text_that_is_no_utf8_is_refused(tmp_path: Path):
    offsets, content = pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
    latin = pa.Array.from_buffers(pa.string(), 1, [None, offsets, content])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        events(tmp_path / "events.parquet", latin)
    (tmp_path / "events.csv").write_bytes(b"user_id,item_id,timestamp\nu,\xff,1\n")
    with pytest.raises(DataError, match="cannot be read as csv"):
        read_interactions(tmp_path / "events.csv")


def test_ids_do_not_change_how_times_and_ratings_are_read(tmp_path: Path):
    columns = {"user_id": ["007", "7"], "timestamp": ["2024-01-02", "2024-01-01"], "rating": ["4.5", "03"]}
    path = write(tmp_path / "events.csv", ["1", "2"], **columns)
    read = read_interactions(path, rating_column="rating")
    assert np.diff(read.time).tolist() == [-86400]
    assert read.rating is not None
    assert read.rating.tolist() == [4.5, 3.0]
    path = write(tmp_path / "events.csv", ["1", "2"], user_id=["a", "b"], timestamp=["5", "NA"])
    with pytest.raises(DataError, match="'timestamp' has 1 empty values, the first in row 2"):
        read_interactions(path)


# The same names in every type that can hold them; 110065001 without its zero is another item.
NAMES = ["0110065001", "110065001", "NA"]


@pytest.mark.parametrize("log", ["csv", "parquet"])
@pytest.mark.parametrize("side", ["csv", "tsv", "parquet"])
def test_joined_tables_find_text_ids(tmp_path: Path, log: str, side: str):
    read = events(tmp_path / f"events.{log}", NAMES)
    path = write(tmp_path / f"items.{side}", NAMES, title=["shirt", "007", "null"], colour=["01", "1", "NA"])
    titled = read_interactions(tmp_path / f"events.{log}", titles=path)
    assert titled.item_titles == ["shirt", "007", "null"]
    features = read_categories(path, Catalog.of(read), item_column="item_id", columns=["colour"])
    np.testing.assert_array_equal(features, np.eye(3))  # 01, 1 and NA in order of text
    vectors = write(tmp_path / "vectors.parquet", NAMES, vector=[[1.0], [2.0], [3.0]])
    found, _ = read_vectors(vectors, Catalog.of(read), item_column="item_id")
    assert found.ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize("items", [["7", "10"], [7, 10], pa.array([7, 10], pa.uint16())], ids=["text", "int", "uint16"])
@pytest.mark.parametrize("known", [["10", "7"], [10, 7]], ids=["text", "int"])
def test_integers_and_text_match_by_what_they_say(tmp_path: Path, items: Any, known: list[Any]):
    catalog = Catalog(np.array(known, dtype=object if isinstance(known[0], str) else np.int64))
    path = write(tmp_path / "vectors.parquet", items, vector=[[7.0], [10.0]])
    vectors, _ = read_vectors(path, catalog, item_column="item_id")
    assert vectors.ravel().tolist() == [10, 7]


def test_another_spelling_is_another_item(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    read = events(tmp_path / "events.parquet", [7, 8])
    path = write(tmp_path / "items.csv", ["007", "8", "7.0", " 7"], title=["a", "b", "c", "d"])
    assert read_interactions(tmp_path / "events.parquet", titles=path).item_titles == ["7", "b"]
    with caplog.at_level(logging.WARNING):
        features = read_categories(path, Catalog.of(read), item_column="item_id", columns=["title"])
    assert features.tolist() == [[0], [1]]
    assert "1 of 2 items have no features" in caplog.text
    unlikes: list[Any] = ["007", " 7", "+7", "7_0", "\u0667", 7.5, True]
    assert Catalog.of(read).ids(unlikes).tolist() == [-1] * len(unlikes)
    assert Catalog.of(read).ids([]).tolist() == []


def test_requests_find_ids_as_they_are_written(tmp_path: Path):
    text, numbers = Catalog(np.array(NAMES, dtype=object)), Catalog(np.array([5, 7, 110065001]))
    path = tmp_path / "histories.json"
    path.write_text(json.dumps({"a": ["0110065001", 110065001], "b": ["NA"]}))
    assert [row.tolist() for row in read_requests(path, text, skip_unknown=False).histories] == [[0, 1], [2]]
    path.write_text(json.dumps([["0110065001", "7", 5]]))
    assert read_requests(path, numbers, skip_unknown=True).histories[0].tolist() == [1, 0]
    with pytest.raises(DataError, match="1 others, the first '0110065001' of user 0"):
        read_requests(path, numbers, skip_unknown=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"user_id": 1.5, "items": [5]}]', "expected 'user_id' to be text everywhere, or integers, got 1.5"),
        ('[{"user_id": true, "items": [5]}]', "expected 'user_id' to be text everywhere, or integers, got True"),
        ('{"a": [5], "a": [7]}', "cannot be read as JSON .an object has 2 keys, of which 1 are different"),
        (f"[[{'9' * 5000}]]", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
    ids=["float", "bool", "repeated", "digits", "depth"],
)
def test_requests_that_name_nobody_are_refused(tmp_path: Path, content: str, message: str):
    path = tmp_path / "histories.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_requests(path, Catalog(np.array([5, 7])), skip_unknown=False)


@pytest.mark.parametrize(("users", "found", "unknown"), [(["007", "7"], "007", "07"), (["7", "8"], "7", "007")])
def test_users_by_name(tmp_path: Path, users: list[str], found: str, unknown: str):
    read = read_interactions(write(tmp_path / "events.csv", ["a", "b"], user_id=users, timestamp=[1, 2]))
    assert user_requests(read, [found]).histories[0].tolist() == [0]
    with pytest.raises(DataError, match=f"got '{unknown}'"):
        user_requests(read, [unknown])


@pytest.mark.parametrize(
    "items",
    [NAMES, [10, 7], pa.array([2**64 - 1, 7], pa.uint64()), ["7", "8"]],
    ids=["text", "int", "uint64", "digits"],
)
def test_a_catalog_keeps_types(tmp_path: Path, items: Any):
    read = events(tmp_path / "events.parquet", items)
    Catalog.of(read).write(tmp_path / "catalog.parquet")
    catalog = Catalog.read(tmp_path / "catalog.parquet")
    assert catalog.labels.dtype == read.item_labels.dtype
    assert catalog.labels.tolist() == read.item_labels.tolist()
    catalog.require_same(read, source="the run")


def test_a_run_that_read_text_as_integers_says_so(tmp_path: Path):
    pq.write_table(pa.table({"item": pa.array([123, 7])}), tmp_path / "catalog.parquet")
    catalog = Catalog.read(tmp_path / "catalog.parquet")
    with pytest.raises(DataError, match=r"'00123'.*ids such as 007 in CSV were read as integers has to be trained"):
        catalog.require_same(events(tmp_path / "events.csv", ["00123", "7"]), source="the run")
    with pytest.raises(DataError, match=r"expected the 2 items of the run, got 1 items in .*, 0 unknown$"):
        catalog.require_same(events(tmp_path / "events.csv", ["7"]), source="the run")


@pytest.mark.parametrize(
    ("items", "message"), [(["a", "b", "a"], "different labels, got 2 in 3 rows"), (["a", None], "1 empty values")]
)
def test_a_catalog_of_unclear_labels_is_refused(tmp_path: Path, items: Any, message: str):
    pq.write_table(pa.table({"item": items}), tmp_path / "catalog.parquet")
    with pytest.raises(DataError, match=message):
        Catalog.read(tmp_path / "catalog.parquet")


@pytest.mark.parametrize(
    "values",
    [
        [7],
        [3, 1, 2, 1],
        [-5, 12, -5, 0, 3, 3],
        [0, 10**6],
        [-(2**63), 2**63 - 1, 0, 0],
        [2**63 - 2, 2**63 - 1, 2**63 - 2],
        [-(2**63), 1 - 2**63],
        ["b", "a", "b"],
    ],
    ids=["one", "close", "negative", "far apart", "whole range", "highest", "lowest", "text"],
)
def test_dense_ids_number_the_sorted_values(values: list[Any]):
    """Integers that lie close together are counted by a table, all others are hashed."""
    kind = pa.large_string() if isinstance(values[0], str) else pa.int64()
    ids, labels = dense_ids(pa.chunked_array([pa.array(values, kind)]))
    expected_labels, expected_ids = np.unique(np.array(values), return_inverse=True)
    assert ids.dtype == np.int32
    assert ids.tolist() == expected_ids.tolist()
    assert labels.tolist() == expected_labels.tolist()
