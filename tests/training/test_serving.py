"""The commands that serve a run: the same answers whichever framework trained it and whichever serves it, and messages
worth reading."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import TrainConfig, load_dataset

from tests.training.commands import FRAMEWORKS, call, error_of, recommend


@pytest.mark.parametrize("trained_with", FRAMEWORKS)
def test_both_frameworks_serve_a_run_alike(runs: dict[str, Path], data: Path, tmp_path: Path, trained_with: str):
    users = [argument for user in (3, 50) for argument in ("--user", user)]
    rows = [recommend(name, runs[trained_with], tmp_path / "top.json", *users) for name in FRAMEWORKS]
    scores = [[row.pop("scores") for row in of_one] for of_one in rows]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-5)
    assert all(np.diff(best).max() <= 0 for best in scores[0])
    assert rows[0] == rows[1]
    assert [row["user_id"] for row in rows[0]] == [3, 50]
    events = load_dataset(data / "events.parquet")
    for row in rows[0]:
        seen = events.item_labels[events.item[events.user == row["user_id"]]].tolist()
        assert len(set(row["items"])) == 10
        assert not set(row["items"]) & set(seen)
        assert row["names"] == ["i00" if item == "i00" else f"Title of {item}" for item in row["items"]]


def test_sequences_get_what_their_users_get(runs: dict[str, Path], data: Path, tmp_path: Path, framework: str):
    users = [0, 7, 11]
    expected = recommend(
        framework, runs["torch"], tmp_path / "expected.json", *(x for user in users for x in ("--user", user))
    )
    events = load_dataset(data / "events.parquet")
    histories = [events.item_labels[events.item[events.user == user]].tolist() for user in users]
    contents = {
        "list.json": histories,
        "object.json": {str(user): history for user, history in zip(users, histories, strict=True)},
        "objects.json": [{"user_id": user, "items": history} for user, history in zip(users, histories, strict=True)],
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    pq.write_table(pa.table({"user_id": users, "items": histories}), tmp_path / "table.parquet")
    names = {"list.json": [0, 1, 2], "object.json": ["0", "7", "11"], "objects.json": users, "table.parquet": users}
    for name, user_ids in names.items():
        rows = recommend(framework, runs["torch"], tmp_path / "top.parquet", "--sequences", tmp_path / name)
        assert [row["items"] for row in rows] == [row["items"] for row in expected], name
        assert [row["user_id"] for row in rows] == user_ids


def test_seen_items_come_back_if_asked_for(runs: dict[str, Path], tmp_path: Path, framework: str):
    (tmp_path / "one.json").write_text('[["i05", "i06", "i07"]]')
    arguments = ("--sequences", tmp_path / "one.json", "--k", 40, "--no-filter-seen")
    (row,) = recommend(framework, runs["jax"], tmp_path / "top.json", *arguments)
    assert set(row["items"]) == {f"i{item:02}" for item in range(40)}


def test_table_names_items_and_history(runs: dict[str, Path], framework: str):
    result = call(framework, "recommend", "--run", runs["torch"], "--user", 3, "--k", 2)
    assert result.exit_code == 0, result.output
    first, *places = result.output.splitlines()
    assert first.startswith("user 3, who had last ")
    assert first.count(" - ") == 2
    assert [line.split()[0] for line in places] == ["1", "2"]
    assert all("Title of i" in line or "i00" in line for line in places)


def test_evaluate_repeats_the_result_of_training(runs: dict[str, Path], framework: str):
    expected = json.loads((runs[framework] / "result.json").read_text())
    for part in ("test", "valid"):
        result = call(framework, "evaluate", "--run", runs[framework], "--part", part, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.output) == expected[part]


def test_a_run_leaves_a_picture(runs: dict[str, Path]):
    for run in runs.values():
        assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "999"], "users: expected users of"),
        (["--user", "nobody"], "got 'nobody'"),
        ([], "user: expected one of user, users, all_users, sequences, got none"),
        (["--user", "1", "--sequences", "x.json"], "got user and sequences"),
        *((["--user", "1", "--k", k], f"k: expected an integer from 1 to 40, got {k}") for k in ("41", "0", "-1")),
        (
            ["--user", "1", "--output", "top.txt"],
            "output: expected a file name that ends in .json, .jsonl, .csv, .parquet, got 'top.txt'",
        ),
        (["--sequences", "nowhere.json"], "nowhere.json: no such file"),
        (["--sequences", "events.csv"], "events.csv: "),
        (["--sequences", "unknown.json"], "got 1 others, the first 'i77' of user 1; skip_unknown leaves them out"),
        (["--sequences", "empty.json"], "expected at least one known item for each user, got none for 1"),
        (["--sequences", "unknown.json", "--skip-unknown"], "got none for 1"),
        (["--sequences", "shape.json"], "expected a list of item ids (text or integers) for user 0"),
        (["--sequences", "broken.json"], "cannot be read as JSON"),
        (["--sequences", "columns.parquet"], "no column 'items'"),
        (["--sequences", "none.json"], "expected at least one sequence, got none"),
        (["--sequences", "unnamed.json"], "the key 'user_id' in every object or in none, got items in number 1"),
        (["--sequences", "rows.json"], "expected the key 'items' in every object or in none, got ['i02'] in number 1"),
        (["--sequences", "mixed.json"], "expected 'user_id' to be text everywhere, or integers, got 3 among them"),
        (["--sequences", "half.json"], r"'user_id' to be text everywhere, or integers, got '\ud800'"),
        (["--sequences", "deep.json"], "cannot be read as JSON (maximum recursion depth"),
        (["--sequences", "digits.json"], "cannot be read as JSON (Exceeds the limit"),
        (["--sequences", "huge.json"], f"got 1 others, the first {2**70} of user 0; skip_unknown leaves them out"),
        (["--sequences", f"{'x' * 300}.json"], "sequences: expected a file that can be read"),
        (["--sequences", "floats.parquet"], "expected 'user_id' to be text everywhere, or integers, got 0.5"),
        (["--sequences", "twice.parquet"], "column 'items' occurs 2 times"),
        (["--user", "1", "--output", "nowhere/top.json"], "output: expected a file in a folder that exists"),
        (["--user", "1", "--output", "folder.json"], "output: expected a file in a folder that exists"),
        (["--user", "1", "--output", "none.json/top.json"], "output: expected a file in a folder that exists"),
        (["--user", "1", "--output", "/proc/top.parquet"], "output: expected a file that can be written"),
    ],
)
def test_bad_requests_end_with_one_line(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    texts = {
        "unknown": '[["i01"], ["i77"]]',
        "empty": '[["i01"], []]',
        "shape": '["i01"]',
        "broken": "[[",
        "none": "[]",
        "unnamed": '[{"user_id": "a", "items": ["i01"]}, {"items": ["i02"]}]',
        "rows": '[{"items": ["i01"]}, ["i02"]]',
        "mixed": '[{"user_id": "a", "items": ["i01"]}, {"user_id": 3, "items": ["i02"]}]',
        "half": r'{"\ud800": ["i01"]}',
        "deep": "[" * 100_000,
        "digits": f"[[{'1' * 5000}]]",
        "huge": f"[[{2**70}]]",
    }
    for name, text in texts.items():
        Path(f"{name}.json").write_text(text)
    Path("events.csv").write_text("a,b\n")
    pq.write_table(pa.table({"a": [1]}), "columns.parquet")
    rows = pa.array([["i01"]])
    pq.write_table(pa.table({"user_id": [0.5], "items": rows}), "floats.parquet")
    pq.write_table(pa.Table.from_arrays([rows, rows], ["items", "items"]), "twice.parquet")
    Path("folder.json").mkdir()
    assert message in error_of(call("torch", "recommend", "--run", runs["torch"], *arguments))


def test_a_training_of_another_catalog_is_refused(runs: dict[str, Path], data: Path, tmp_path: Path, framework: str):
    run = tmp_path / "run"
    shutil.copytree(runs[framework], run)
    events = pq.read_table(data / "events.parquet")
    kept = np.array([item != "i09" for item in events["item_id"].to_pylist()])
    pq.write_table(events.filter(pa.array(kept)), tmp_path / "other.parquet")
    options = json.loads((run / "config.json").read_text()) | {"data": str(tmp_path / "other.parquet")}
    (run / "config.json").write_text(json.dumps(options))
    train = importlib.import_module(f"cce_minus.{framework}_impl.train").train
    config = TrainConfig.from_json(json.dumps(options))
    with pytest.raises(ValueError, match="1 missing"):
        train(replace(config, out=str(run), resume=True))
    catalog = pq.read_table(run / "catalog.parquet")
    pq.write_table(catalog.slice(0, 39), run / "catalog.parquet")
    (tmp_path / "one.json").write_text('[["i05"]]')
    result = call(framework, "recommend", "--run", run, "--sequences", tmp_path / "one.json")
    assert result.exit_code == 2
    assert "expected weights of the 39 items" in result.output


def test_a_folder_without_a_run_is_refused(tmp_path: Path, framework: str):
    for command in (["evaluate"], ["recommend", "--user", "1"], ["export", "--to", str(tmp_path / "export")]):
        result = call(framework, *command, "--run", tmp_path)
        assert result.exit_code == 2
        assert "error: run: expected the folder of a training run" in result.output


def test_serving_imports_neither_fabric_nor_the_other_framework(runs: dict[str, Path], tmp_path: Path, framework: str):
    other = "jax" if framework == "torch" else "torch"
    unwanted = ("lightning_fabric", "orbax", "matplotlib", "triton", other)
    code = (
        f"import sys; from cce_minus.{framework}_impl.cli import app;"
        f"app(['recommend', '--run', {str(runs[other])!r}, '--user', '1', '--device', 'cpu'], standalone_mode=False);"
        f"print([name for name in {unwanted} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180)
    assert result.stdout.splitlines()[-1] == "[]"
