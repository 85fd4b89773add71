"""The command recommend: whom it is asked for, among which items, and the files that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys.serving import recommendations

from tests.training.commands import call, error_of, recommend


def items_of(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [row["items"] for row in rows]


def as_long(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What a file with a row an item holds of those with a row a user."""
    return [
        (row["user_id"], rank, item, name, None if score is None else np.float32(score))
        for row in rows
        for rank, (item, name, score) in enumerate(zip(row["items"], row["names"], row["scores"], strict=True), start=1)
    ]


@pytest.mark.parametrize("name", ["users.txt", "users", "users.csv", "users.tsv", "users.jsonl", "users.parquet"])
def test_users_of_a_file_get_what_they_get_by_name(runs: dict[str, Path], tmp_path: Path, name: str):
    users, path = [7, 3, 50, 3], tmp_path / name
    expected = recommend("torch", runs["jax"], tmp_path / "a.json", *(x for user in users for x in ("--user", user)))
    lines = {
        ".csv": ["user_id,other", *(f"{user},1" for user in users)],
        ".tsv": ["user_id", *map(str, users)],
        ".jsonl": [json.dumps({"user_id": user}) for user in users],
    }
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"user_id": users}), path)
    else:
        path.write_text("\n".join(lines.get(path.suffix, [*map(str, users), "", " "])) + "\n")
    assert recommend("torch", runs["jax"], tmp_path / "b.json", "--users", path) == expected
    assert [row["user_id"] for row in expected] == users


def test_all_users_come_part_by_part(
    runs: dict[str, Path], tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
):
    arguments = ("--all-users", "--k", 3)
    whole = recommend(framework, runs["torch"], tmp_path / "whole.parquet", *arguments)
    assert [row["user_id"] for row in whole] == list(range(60))
    monkeypatch.setattr(recommendations, "PART", 32)
    for name in ("parts.json", "parts.parquet"):
        parts = recommend(framework, runs["torch"], tmp_path / name, *arguments)
        assert items_of(parts) == items_of(whole)
        for mine, theirs in zip(parts, whole, strict=True):
            np.testing.assert_allclose(mine["scores"], theirs["scores"], rtol=1e-4, atol=1e-5)


def test_files_of_any_format_hold_the_same(runs: dict[str, Path], tmp_path: Path, framework: str):
    users = ("--user", 3, "--user", "new", "--user", 50, "--unknown-users", "popular", "--k", 4)
    rows = recommend(framework, runs[framework], tmp_path / "top.json", *users)
    expected = as_long(rows)
    assert len(expected) == 12
    assert as_long(recommend(framework, runs[framework], tmp_path / "top.parquet", *users)) == expected
    columns = ["user_id", "rank", "item_id", "title", "score"]
    for name in ("top.csv", "top.jsonl"):
        result = call(framework, "recommend", "--run", runs[framework], *users, "--output", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert "3 users" in result.output
    records = [json.loads(line) for line in (tmp_path / "top.jsonl").read_text().splitlines()]
    assert [list(record) for record in records] == [columns] * 12
    table = pacsv.read_csv(tmp_path / "top.csv", convert_options=pacsv.ConvertOptions(strings_can_be_null=True))
    assert table.column_names == columns
    for found in (records, table.to_pylist()):
        scores = [None if row["score"] is None else np.float32(row["score"]) for row in found]
        assert [(*(row[name] for name in columns[:4]), score) for row, score in zip(found, scores, strict=True)] == (
            expected
        )


def test_unknown_users(runs: dict[str, Path], data: Path, tmp_path: Path, framework: str):
    users = ("--user", 999, "--user", 3, "--user", "nobody")
    line = error_of(call(framework, "recommend", "--run", runs["torch"], *users))
    assert "(60 of them), got '999', 'nobody', 2 of 3 users; unknown_users = skip or popular" in line
    output = tmp_path / "top.json"
    result = call(framework, "recommend", "--run", runs["torch"], *users, "--unknown-users", "skip", "--output", output)
    assert result.output.count("left out 2 of 3 users that it does not have: '999', 'nobody'") == 1
    assert [row["user_id"] for row in json.loads(output.read_text())] == [3]

    rows = recommend(framework, runs["torch"], output, *users, "--unknown-users", "popular", "--k", 5)
    assert [row["user_id"] for row in rows] == ["999", "3", "nobody"]  # one of them is no integer
    assert rows[0]["scores"] == rows[2]["scores"] == [None] * 5
    assert None not in rows[1]["scores"]
    events = pq.read_table(data / "events.parquet").to_pylist()
    trained = [row["item_id"] for row in events if row["timestamp"] < 10]  # the last two of each user are held out
    counts = {item: trained.count(item) for item in sorted(set(trained))}
    assert rows[0]["items"] == rows[2]["items"] == sorted(counts, key=lambda item: -counts[item])[:5]

    rows = recommend(framework, runs["torch"], output, "--user", 999, "--user", 3, "--unknown-users", "popular")
    assert [row["user_id"] for row in rows] == [999, 3]


def test_nobody_is_left(runs: dict[str, Path], tmp_path: Path):
    arguments = ("--user", "nobody", "--unknown-users", "skip")
    for name, text in {
        "top.json": "[]\n",
        "top.jsonl": "",
        "top.csv": '"user_id","rank","item_id","title","score"\n',
    }.items():
        result = call("torch", "recommend", "--run", runs["torch"], *arguments, "--output", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert "0 users" in result.output
        assert (tmp_path / name).read_text() == text
    assert recommend("torch", runs["torch"], tmp_path / "top.parquet", *arguments) == []


def test_only_candidates_that_are_not_excluded(runs: dict[str, Path], tmp_path: Path, framework: str):
    output, users = tmp_path / "top.json", ("--user", 3, "--user", "new", "--unknown-users", "popular")
    (tmp_path / "stock.txt").write_text("i05\ni06\ni07\ni08\ni77\n")
    (tmp_path / "old.csv").write_text("item_id\ni06\n")
    whole = recommend(framework, runs["jax"], output, *users, "--k", 40, "--no-filter-seen")
    chosen = ("--candidates", tmp_path / "stock.txt", "--exclude", tmp_path / "old.csv", "--no-filter-seen")
    rows = recommend(framework, runs["jax"], output, *users, *chosen)
    for row, everything in zip(rows, whole, strict=True):
        assert row["items"] == [item for item in everything["items"] if item in ("i05", "i07", "i08")]
    result = call(framework, "recommend", "--run", runs["jax"], "--user", 3, *chosen)
    assert result.output.count("left out 1 of 5 items that are not in the catalog: 'i77'") == 1
    seen = items_of(recommend(framework, runs["jax"], output, "--user", 3, *chosen[:-1]))[0]
    assert seen == [item for item in rows[0]["items"] if item in seen]
    others = recommend(framework, runs["jax"], output, "--user", 3, "--exclude", tmp_path / "stock.txt", "--k", 40)
    assert not {"i05", "i06", "i07", "i08"} & set(others[0]["items"])
    assert len(others[0]["items"]) > 10


def test_a_user_who_has_seen_nearly_all_ends_no_batch(runs: dict[str, Path], tmp_path: Path, framework: str):
    sequences = {"all but two": [f"i{item:02}" for item in range(38)], "one": ["i05"]}
    (tmp_path / "histories.json").write_text(json.dumps(sequences))
    arguments = ("--sequences", tmp_path / "histories.json")
    rows = recommend(framework, runs["torch"], tmp_path / "top.json", *arguments)
    assert sorted(rows[0]["items"]) == ["i38", "i39"]
    assert [len(row[name]) for row in rows for name in ("items", "names", "scores")] == [2, 2, 2, 10, 10, 10]


def test_the_terminal_shows_scores(runs: dict[str, Path], tmp_path: Path, framework: str):
    users = ("--user", 3, "--user", "new", "--unknown-users", "popular", "--k", 2)
    known, unknown = recommend(framework, runs["torch"], tmp_path / "top.json", *users)
    result = call(framework, "recommend", "--run", runs["torch"], *users)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("user 3, who had last Title of i")
    assert lines[1].split()[:2] == ["1", f"{known['scores'][0]:.4f}"]
    assert lines[3] == "user new, who is unknown: the most popular items"
    for rank, line in enumerate(lines[4:], start=1):
        assert line.split()[0] == str(rank)
        assert unknown["names"][rank - 1] == line[17:].partition("  [")[0]
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all-users", "--users", "users.txt"], "one of user, users, all_users, sequences, got users and all_users"),
        (["--user", "1", "--users", "users.txt"], "got user and users"),
        (["--users", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--users", "empty.txt"], "empty.txt: expected one id a line, got none"),
        (["--users", "items.csv"], "no column 'user_id'"),
        (["--users", "latin.txt"], "latin.txt: cannot be read as text"),
        (["--user", "1", "--unknown-users", "guess"], "expected one of error, skip, popular, got 'guess'"),
        (["--all-users", "--unknown-users", "skip"], "unknown_users: only for user and users, got skip with all_users"),
        (["--user", "1", "--skip-unknown"], "skip_unknown: only for sequences, got user"),
        (["--user", "1", "--candidates", "users.txt"], "got none but '1'"),
        (["--user", "1", "--candidates", "items.csv", "--exclude", "items.csv"], "at least one that is not excluded"),
        (["--user", "1", "--exclude", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--user", "1", "--candidates", "x" * 300], "candidates: expected a file that can be read"),
    ],
)  # fmt: skip
def test_bad_requests_end_with_one_line(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    Path("users.txt").write_text("1\n")
    Path("empty.txt").write_text("\n \n")
    Path("items.csv").write_text("item_id\ni01\n")
    Path("latin.txt").write_bytes("Jürgen\n".encode("latin-1"))
    assert message in error_of(call("torch", "recommend", "--run", runs["torch"], *arguments))
