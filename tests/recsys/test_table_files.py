"""Where tables come from: folders of parts, patterns, compressed text, JSON lines; and what text may look like."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import DataError, load_dataset, read_interactions
from cce_minus.recsys.data.tables import read_columns

HEADER = "user_id,item_id,timestamp\n"
ROWS = (("a", "007", 3), ("b", "8", 1), ("a", "9", 2))


def csv(*rows: tuple[str, str, int], delimiter: str = ",") -> str:
    return "".join(delimiter.join(map(str, row)) + "\n" for row in (HEADER.strip().split(","), *rows))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def labels(path: Path) -> list[tuple[str, str, int]]:
    events = read_interactions(path)
    ids = events.user_labels[events.user].tolist(), events.item_labels[events.item].tolist()
    return list(zip(*ids, events.time.tolist(), strict=True))


SORTED = [("a", "9", 2), ("a", "007", 3), ("b", "8", 1)]


def test_compressed_text_is_read(tmp_path: Path):
    for ending, compress in ((".gz", gzip.compress), (".zst", lambda data: pa.compress(data, "zstd", asbytes=True))):
        for name, delimiter in (("log.csv", ","), ("log.TSV", "\t")):
            path = tmp_path / f"{name}{ending}"
            path.write_bytes(compress(csv(*ROWS, delimiter=delimiter).encode()))
            assert labels(path) == SORTED
    path.write_bytes(b"this is not compressed")
    with pytest.raises(DataError, match=r"log\.TSV\.zst: cannot be read \("):
        labels(path)
    for name in ("log.parquet.gz", "log.gz", "log"):
        with pytest.raises(DataError, match=f"expected a file name that ends in .parquet, .*, got '{name}'"):
            labels(write(tmp_path / name, "x"))


def test_semicolons_marks_and_quoted_line_breaks(tmp_path: Path):
    assert labels(write(tmp_path / "log.csv", csv(*ROWS, delimiter=";"), "utf-8-sig")) == SORTED
    prices = "user_id;item_id;timestamp;price\na;007;3;1,5\nb;8;1;2\na;9;2;3,25\n"
    assert labels(write(tmp_path / "log.csv", prices)) == SORTED
    text = HEADER + '"a ""b""\n, c",x,1\n' + "".join(f"u,{item},2\n" for item in range(300_000))
    events = read_interactions(write(tmp_path / "quoted.csv", text))  # more than a block of the reader's
    assert events.user_labels.tolist() == ['a "b"\n, c', "u"]
    assert len(events.item) == 300_001
    with pytest.raises(DataError, match="no column 'item_id'; the file has 'user_id', 'item', 'timestamp'"):
        labels(write(tmp_path / "log.csv", "user_id;item;timestamp\na;b;1\n"))


def test_other_encodings_are_named(tmp_path: Path):
    text = HEADER + "a,b,1\n\u00e9,b,2\n"
    with pytest.raises(DataError, match="expected UTF-8, got the byte 0xe9 in line 3, as of Latin-1 or Windows-1252"):
        labels(write(tmp_path / "log.csv", text, "latin-1"))
    with pytest.raises(DataError, match="expected UTF-8, got UTF-16 by its first bytes"):
        labels(write(tmp_path / "log.csv", text, "utf-16"))


def test_json_lines(tmp_path: Path):
    rows = [{"item_id": item, "timestamp": time, "user_id": user, "other": {"x": [1]}} for user, item, time in ROWS]
    assert labels(write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, rows)) + "\n")) == SORTED
    dates = [{"user_id": 7, "item_id": "2024-01-02", "timestamp": f"2024-01-0{day} 10:00:00"} for day in (2, 1)]
    events = read_interactions(write(tmp_path / "log.ndjson", "\n".join(map(json.dumps, dates))))
    assert (events.user_labels.tolist(), events.item_labels.tolist()) == ([7], ["2024-01-02"])
    assert (events.time[1] - events.time[0]) == 86400
    for text, message in (
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n{"user_id": "x", "item_id": 2, "timestamp": 3}', "as jsonl"),
        ('{"user_id": 1, "item_id": 2}', "no column 'timestamp'; the file has 'user_id', 'item_id'"),
        ('{"user_id": 1.5, "item_id": 2, "timestamp": 3}', "'user_id' must hold integers or text, got double"),
    ):
        with pytest.raises(DataError, match=message):
            labels(write(tmp_path / "bad.jsonl", text))


def test_parts_of_a_folder_are_one_table(tmp_path: Path):
    folder = tmp_path / "log"
    for number, row in enumerate(ROWS):
        part = pa.table({name: [value] for name, value in zip(HEADER.strip().split(","), row, strict=True)})
        (folder / f"run={number}").mkdir(parents=True)
        pq.write_table(part, folder / f"run={number}" / f"part-0000{number}.snappy.parquet")
    write(folder / "_SUCCESS", "")
    write(folder / ".part-00000.snappy.parquet.crc", "x")
    assert labels(folder) == SORTED
    assert load_dataset(folder).num_users == 2
    write(folder / "more.csv", csv(*ROWS))
    with pytest.raises(DataError, match="expected parts of one format, got csv and parquet"):
        labels(folder)


def test_ids_of_a_folder_have_one_type(tmp_path: Path):
    """Plain integers of one part are text where another has a text; events of one time keep the order of the parts."""
    write(tmp_path / "log" / "1.csv", HEADER + "1,7,5\n1,8,5\n")
    write(tmp_path / "log" / "2.csv", HEADER + "1,007,5\n")
    assert labels(tmp_path / "log") == [(1, "7", 5), (1, "8", 5), (1, "007", 5)]
    write(tmp_path / "log" / "3.csv", "user_id,item_id,timestamp\n1,7,2024-01-01 10:00:00\n")
    with pytest.raises(DataError, match="a column has different types in different files"):
        labels(tmp_path / "log")


def test_names_of_folders_are_columns(tmp_path: Path):
    for day, user, item in (("2024-01-02", "7", "x"), ("2024-01-01", "a%2Fb", "y")):
        write(tmp_path / "log" / f"timestamp={day}" / f"user_id={user}" / "part.csv", f"item_id\n{item}\n{item}\n")
    events = read_interactions(tmp_path / "log")
    assert events.user_labels.tolist() == ["7", "a/b"]
    assert events.item_labels[events.item].tolist() == ["x", "x", "y", "y"]
    assert (events.time[0] - events.time[-1]) == 86400
    write(tmp_path / "log" / "timestamp=2024-01-03" / "user_id=__HIVE_DEFAULT_PARTITION__" / "part.csv", "item_id\nx\n")
    with pytest.raises(DataError, match="column 'user_id' has 1 empty values"):
        labels(tmp_path / "log")
    write(tmp_path / "times" / "timestamp=__HIVE_DEFAULT_PARTITION__" / "a.csv", "user_id,item_id\n1,2\n")
    write(tmp_path / "times" / "timestamp=7" / "a.csv", "user_id,item_id\n3,4\n")
    assert read_interactions(tmp_path / "times", drop_missing=True).time.tolist() == [7]
    numbers = tmp_path / "numbers" / "user_id=7" / "log.csv"
    table = read_columns(
        write(numbers, "item_id,timestamp\n1,2\n").parent.parent, ids=["user_id"], values=["timestamp"]
    )
    assert table.to_pydict() == {"user_id": [7], "timestamp": [2]}


def test_patterns(tmp_path: Path):
    for number, row in enumerate(ROWS):
        write(tmp_path / f"2024-0{number}.csv", csv(row))
    write(tmp_path / "2023.csv", csv(("c", "1", 1)))
    assert labels(tmp_path / "2024-*.csv") == SORTED
    assert load_dataset(str(tmp_path / "2024-0[01].csv")).num_users == 2
    with pytest.raises(DataError, match=r"2025-\*\.csv: no file matches"):
        labels(tmp_path / "2025-*.csv")
    write(tmp_path / "a[1].csv", csv(*ROWS))  # a name as any other
    assert labels(tmp_path / "a[1].csv") == SORTED
