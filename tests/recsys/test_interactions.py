from __future__ import annotations

import datetime
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import DataError, read_interactions

EVENTS = {
    "user_id": [7, 7, 3, 7, 3],
    "item_id": [50, 10, 10, 50, 90],
    "timestamp": [30, 10, 5, 20, 6],
}
FORMATS = ("parquet", "csv", "tsv")


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        pacsv.write_csv(table, path, pacsv.WriteOptions(delimiter=delimiter))
    return path


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_sorts_by_user_and_time_and_numbers_ids_in_order(tmp_path: Path, ending: str):
    events = read_interactions(write(tmp_path / f"events.{ending}", EVENTS))
    assert events.user_labels.tolist() == [3, 7]
    assert events.item_labels.tolist() == [10, 50, 90]
    assert events.user.tolist() == [0, 0, 1, 1, 1]
    assert events.item.tolist() == [0, 2, 0, 1, 1]
    assert events.time.tolist() == [5, 6, 10, 20, 30]
    assert events.offsets.tolist() == [0, 2, 5]
    assert (events.num_users, events.num_items) == (2, 3)
    assert (events.user.dtype, events.item.dtype, events.time.dtype) == (np.int32, np.int32, np.int64)
    assert events.item_titles is None


def test_own_column_names_and_text_ids(tmp_path: Path):
    columns = {"who": ["b", "a", "b"], "what": ["x", "y", "x"], "when": [1, 2, 3], "price": [1.5, None, 2.0]}
    path = write(tmp_path / "events.csv", columns)
    events = read_interactions(path, user_column="who", item_column="what", time_column="when")
    assert events.user_labels.tolist() == ["a", "b"]
    assert events.item_labels.tolist() == ["x", "y"]
    assert events.item.tolist() == [1, 0, 0]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_kinds_of_text_ids(tmp_path: Path, kind: pa.DataType):
    columns = {**EVENTS, "item_id": pa.array(["b", "a", "a", "b", "c"], kind)}
    events = read_interactions(write(tmp_path / "events.parquet", columns))
    assert events.item_labels.tolist() == ["a", "b", "c"]
    assert events.item.tolist() == [0, 2, 0, 1, 1]


def test_dictionary_encoded_ids(tmp_path: Path):
    columns = {**EVENTS, "item_id": pa.array(["b", "a", "a", "b", "c"]).dictionary_encode()}
    events = read_interactions(write(tmp_path / "events.parquet", columns))
    assert events.item_labels.tolist() == ["a", "b", "c"]
    assert events.item.tolist() == [0, 2, 0, 1, 1]


def test_repeated_events_are_kept_and_ties_keep_the_order_of_the_file(tmp_path: Path):
    columns = {"user_id": [1, 1, 1, 1], "item_id": [9, 4, 9, 6], "timestamp": [5, 5, 5, 5]}
    events = read_interactions(write(tmp_path / "events.csv", columns))
    assert events.item_labels[events.item].tolist() == [9, 4, 9, 6]


def test_times_that_go_back_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path / "events.csv", EVENTS)
    with caplog.at_level(logging.WARNING):
        read_interactions(path)
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    assert "'timestamp'" in caplog.text


def test_users_that_alternate_in_order_of_time_need_no_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    columns = {"user_id": [2, 1, 2, 1], "item_id": [1, 2, 3, 4], "timestamp": [1, 2, 3, 4]}
    events = read_interactions(write(tmp_path / "events.csv", columns))
    assert events.item.tolist() == [1, 3, 0, 2]
    assert not caplog.records


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([datetime.date(1970, 1, 3), datetime.date(1970, 1, 2)], [86400, 172800]),
        ([datetime.datetime(1970, 1, 1, 0, 0, 2), datetime.datetime(1970, 1, 1)], [0, 2_000_000]),
        ([2.0, 1.0], [1, 2]),
    ],
    ids=["dates", "timestamps", "whole floats"],
)
def test_kinds_of_times(tmp_path: Path, times: list[Any], expected: list[int]):
    columns = {"user_id": [1, 1], "item_id": [5, 6], "timestamp": times}
    events = read_interactions(write(tmp_path / "events.parquet", columns))
    assert events.time.tolist() == expected
    assert events.item.tolist() == [1, 0]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_a_missing_column_is_named(tmp_path: Path, ending: str, column: str):
    columns = {name: values for name, values in EVENTS.items() if name != column}
    path = write(tmp_path / f"events.{ending}", columns)
    with pytest.raises(DataError, match=column) as caught:
        read_interactions(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_nulls_are_named_with_their_row(tmp_path: Path, ending: str, column: str):
    values = list(EVENTS[column])
    path = write(tmp_path / f"events.{ending}", {**EVENTS, column: [*values[:2], None, *values[3:]]})
    with pytest.raises(DataError, match=rf"'{column}' has 1 empty values, the first in row 3") as caught:
        read_interactions(path)
    assert str(path) in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path):
    text = "user_id,item_id,timestamp,rating\n1,x,5,2\n,y,6,3\n3,,noon,x\n4,,7,1\n"
    path = write_text(tmp_path / "events.csv", text)
    with pytest.raises(DataError) as caught:
        read_interactions(path, rating_column="rating")
    assert str(caught.value) == (
        f"{path}: column 'user_id' has 1 empty values, the first in row 2; column 'item_id' has 2 empty values, the "
        "first in row 3 (drop_missing leaves such rows out); column 'timestamp' must hold whole numbers, dates or "
        "timestamps, got string; column 'rating' must hold numbers, got string"
    )


@pytest.mark.parametrize("ending", FORMATS)
def test_rows_without_a_value_are_left_out_if_asked_for(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture):
    columns = {"user_id": [7, None, 3, 7], "item_id": [1, 2, None, 4], "timestamp": [1, 2, None, 4]}
    path = write(tmp_path / f"events.{ending}", columns)
    events = read_interactions(path, drop_missing=True)
    assert events.item_labels[events.item].tolist() == [1, 4]
    assert caplog.messages == [
        f"{path}: left out 2 of 4 rows with an empty value: 'user_id' in 1, 'item_id' in 1, 'timestamp' in 1"
    ]
    path = write(tmp_path / f"none.{ending}", {**EVENTS, "item_id": pa.nulls(5, pa.int64())})
    with pytest.raises(DataError, match="drop_missing leaves none of 5 rows"):
        read_interactions(path, drop_missing=True)


@pytest.mark.parametrize(
    ("times", "sample"),
    [
        (["5", "6", "", "soon"], "'soon' in row 4"),
        (["2024-01-02 10:00:00", "7", "2024-01-03"], "'7' in row 2"),
        (
            ["2024-01-02T10:00:00+01:00", "2024-01-02T10:00:00", "2024-01-02T10:00:00Z"],
            "'2024-01-02T10:00:00' in row 2",
        ),
    ],
)
def test_a_time_unlike_the_others_is_shown(tmp_path: Path, times: list[str], sample: str):
    rows = "".join(f"1,2,{time}\n" for time in times)
    path = write_text(tmp_path / "events.csv", f"user_id,item_id,timestamp\n{rows}")
    with pytest.raises(DataError, match=f"'timestamp' must hold .*, got string, such as {sample}"):
        read_interactions(path, drop_missing=True)


def test_an_empty_text_id_is_a_null(tmp_path: Path):
    path = write_text(tmp_path / "events.csv", "user_id,item_id,timestamp\na,x,1\n,y,2\n")
    with pytest.raises(DataError, match="'user_id' has 1 empty values, the first in row 2"):
        read_interactions(path)


def test_a_nan_time_is_a_null(tmp_path: Path):
    columns = {"user_id": [1, 1], "item_id": [5, 6], "timestamp": [1.0, float("nan")]}
    with pytest.raises(DataError, match="'timestamp' has 1 empty values"):
        read_interactions(write(tmp_path / "events.parquet", columns))


@pytest.mark.parametrize("ending", FORMATS)
def test_an_empty_file(tmp_path: Path, ending: str):
    path = tmp_path / f"events.{ending}"
    path.touch()
    with pytest.raises(DataError, match=r"events\.\w+: the file is empty"):
        read_interactions(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_without_rows(tmp_path: Path, ending: str):
    path = write(tmp_path / f"events.{ending}", {name: pa.array([], pa.int64()) for name in EVENTS})
    with pytest.raises(DataError, match="no rows"):
        read_interactions(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("events.parquet", "this is not parquet", "cannot be read as parquet"),
        ("events.csv", "user_id,item_id,timestamp\n1,2,3\n1,2\n", "cannot be read as csv"),
        ("events.json", "{}", "expected a file name that ends in .parquet"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, text: str, message: str):
    path = write_text(tmp_path / name, text)
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(path)
    assert str(path) in str(caught.value)


def test_a_header_that_is_not_utf8(tmp_path: Path):
    path = tmp_path / "events.csv"
    path.write_bytes(b"us\xe9r_id,item_id,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match="cannot be read as csv"):
        read_interactions(path)


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_interactions(tmp_path / "events.csv")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: expected files that end in .*, got a folder without any"):
        read_interactions(folder)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", [1.5, 2.5], "'user_id' must hold integers or text, got double"),
        ("item_id", [[1], [2]], "'item_id' must hold integers or text, got list"),
        ("timestamp", ["noon", "night"], "'timestamp' must hold whole numbers, dates or timestamps"),
        ("timestamp", [1.5, 2.0], "'timestamp' cannot be read as times"),
    ],
)
def test_unusable_types_are_named(tmp_path: Path, column: str, values: list[Any], message: str):
    columns = {"user_id": [1, 1], "item_id": [5, 6], "timestamp": [1, 2], column: values}
    with pytest.raises(DataError, match=message):
        read_interactions(write(tmp_path / "events.parquet", columns))


def test_one_column_cannot_be_two_things(tmp_path: Path):
    path = write(tmp_path / "events.csv", EVENTS)
    with pytest.raises(DataError, match="'user_id' more than once"):
        read_interactions(path, item_column="user_id")


def test_a_repeated_header_is_refused(tmp_path: Path):
    path = write_text(tmp_path / "events.csv", "user_id,item_id,item_id,timestamp\n1,2,3,4\n")
    with pytest.raises(DataError, match="'item_id' occurs 2 times"):
        read_interactions(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_titles(tmp_path: Path, ending: str):
    items = {"item_id": [50, 90, 50, 77], "title": ["Fifty", None, "Other", "Unused"]}
    path = write(tmp_path / f"items.{ending}", items)
    events = read_interactions(write(tmp_path / "events.csv", EVENTS), titles=path)
    assert events.item_titles == ["10", "Fifty", "90"]


def test_titles_under_other_names_and_as_text_ids(tmp_path: Path):
    path = write(tmp_path / "items.parquet", {"item_id": ["10", "50", "90"], "name": ["a", "b", "c"]})
    events = read_interactions(write(tmp_path / "events.csv", EVENTS), titles=path, title_column="name")
    assert events.item_titles == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"item_id": [10], "name": ["a"]}, "no column 'title'"),
        ({"item_id": [11], "title": ["a"]}, "a title for none of the items"),
        ({"item_id": ["ten"], "title": ["a"]}, "a title for none of the items"),
    ],
)
def test_useless_titles_are_refused(tmp_path: Path, items: dict[str, Any], message: str):
    path = write(tmp_path / "items.csv", items)
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(write(tmp_path / "events.csv", EVENTS), titles=path)
    assert str(path) in str(caught.value)
