"""The command compare, on folders as runs leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import MetricsLog, TrainConfig
from cce_minus.recsys.cli.commands import build_app
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.run import comparison
from cce_minus.recsys.run.fingerprint import Fingerprint
from cce_minus.recsys.run.progress import TrainResult
from typer.testing import CliRunner

POPULARITY = {"ndcg@10": 0.125, "hr@10": 0.25}


def write_run(
    folder: Path, *, ndcg: float = 0.5, digest: str = "a", finished: bool = True, num_items: int = 9, **changes: Any
) -> Path:
    """A run of three epochs, of which the second is the best."""
    folder.mkdir(parents=True)
    (folder / "torch-checkpoints").mkdir()
    (folder / "config.json").write_text(TrainConfig(out=str(folder), **changes).to_json())
    Fingerprint(digest, 900, 60).write(folder / "data.json")
    Catalog(np.arange(num_items)).write(folder / "catalog.parquet")
    log = MetricsLog(folder / "metrics.csv", metric_names=("ndcg@10", "hr@10"))
    for epoch, value in enumerate((0.1, ndcg, 0.2)):
        metrics = {"ndcg@10": value, "hr@10": value}
        log.append(epoch=epoch, step=epoch, train_loss=3.0 - epoch, metrics=metrics, seconds=2.5 * (epoch + 1))
    if finished:
        test = {"ndcg@10": ndcg / 2, "hr@10": ndcg}
        result = TrainResult(test, {}, 1, [3.0, 2.0, 1.0], 7.5, str(folder / "best.safetensors"), POPULARITY)
        result.write(folder / "result.json")
    return folder


def compare(*arguments: Any, framework: str = "torch") -> Any:
    def unused(*_: Any) -> Any:
        raise AssertionError("comparing trains and serves nothing")

    return CliRunner().invoke(build_app(framework, unused, unused), ["compare", *map(str, arguments)])


def rows_of(output: str) -> dict[str, list[str]]:
    """The cells of each row, by its name; those of all tables of a wide comparison."""
    rows: dict[str, list[str]] = {}
    for line in output.splitlines():
        name, *cells = line.split("  ", 1)
        rows.setdefault(name, []).extend(" ".join(cells).split())
    return rows


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_what_runs_reached_and_where_they_differ(tmp_path: Path, framework: str):
    runs = [write_run(tmp_path / "a", ndcg=0.5), write_run(tmp_path / "b", ndcg=0.75, dim=32, learning_rate=1e-5)]
    result = compare(*runs, framework=framework)
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    rows = rows_of(result.stdout)
    assert rows["ndcg@10"] == ["0.2500", "0.3750", "0.1250"]
    assert rows["hr@10"] == ["0.5000", "0.7500", "0.2500"]
    assert rows["best epoch"] == ["1", "1"]
    assert rows["seconds"] == ["7.5", "7.5"]
    assert rows["framework"] == ["PyTorch", "PyTorch"]
    assert rows["dim"] == ["64", "32"]
    assert rows["learning_rate"] == ["0.001", "1e-05"]
    assert "popularity" in result.stdout
    assert not {"out", "epochs", "seed"} & set(rows)


def test_many_runs_of_long_options_fit_80_columns(tmp_path: Path):
    runs = [write_run(tmp_path / f"a run with a name {n}", ndcg=n / 10, data="d" * 100 + str(n)) for n in range(1, 8)]
    result = compare(*runs)
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert rows_of(result.stdout)["ndcg@10"] == [*(f"{n / 20:.4f}" for n in range(1, 8)), "0.1250"]


def test_json_holds_all_of_it(tmp_path: Path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", titles="t.csv")]
    result = compare(*runs, "--json")
    first, second = json.loads(result.stdout)["runs"]
    assert first["test"] == second["test"] == {"ndcg@10": 0.25, "hr@10": 0.5}
    assert (first["popularity"], first["best_epoch"], first["seconds"]) == (POPULARITY, 1, 7.5)
    assert (first["run"], first["framework"]) == (str(runs[0]), "PyTorch")
    assert first["data"] == {"digest": "a", "train_events": 900, "tested": 60}
    assert [run["options"] for run in (first, second)] == [{"titles": None}, {"titles": "t.csv"}]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"digest": "a"}, {"digest": "b"}, "of different data or splits, and their metrics do not compare"),
        ({"filter_seen": True}, {}, "the runs rank differently, and their metrics do not compare (filter_seen)"),
        ({"test_users": 9}, {"test_users": 9, "seed": 1}, "do not compare (seed, which chooses test_users)"),
        ({"num_items": 30}, {"num_items": 40}, "do not compare (the numbers of their items)"),
        ({"finished": False}, {}, "has not finished: its best epoch so far, and no test"),
    ],
)
def test_what_does_not_compare_is_told(tmp_path: Path, first: dict[str, Any], second: dict[str, Any], message: str):
    result = compare(write_run(tmp_path / "a", **first), write_run(tmp_path / "b", **second))
    assert result.exit_code == 0, result.output
    assert result.stderr.count(message) == 1
    assert result.stderr.count("\n") == 1


def test_an_unfinished_run_shows_what_there_is(tmp_path: Path):
    runs = [write_run(tmp_path / "a", finished=False), write_run(tmp_path / "b")]
    record = json.loads(compare(*runs, "--json").stdout)["runs"][0]
    assert (record["test"], record["best_epoch"], record["seconds"]) == ({}, 1, 7.5)
    with (runs[0] / "metrics.csv").open("a") as log:
        log.write("3,3,0.5,0.9")  # half a line, which is being written
    assert json.loads(compare(*runs, "--json").stdout)["runs"][0] == record
    (runs[0] / "metrics.csv").write_text("epoch,step,train_loss,seconds\n")
    record = json.loads(compare(*runs, "--json").stdout)["runs"][0]
    assert (record["best_epoch"], record["seconds"]) == (None, 0.0)


def test_the_picture_has_at_most_six_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [write_run(tmp_path / f"r{n}") for n in range(7)]
    result = compare(*runs, "--output", tmp_path / "compare.png")
    assert result.exit_code == 0, result.output
    assert "compare.png: drew the first 6 of 7 runs" in result.stderr
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    drawn: list[dict[str, Path]] = []
    monkeypatch.setattr(comparison, "plot_learning_curve", lambda logs, path: drawn.append(logs))
    assert compare(*runs[:2], "--output", tmp_path / "compare.png").exit_code == 0
    assert drawn == [{"r0": runs[0] / "metrics.csv", "r1": runs[1] / "metrics.csv"}]


def test_runs_of_one_name_are_told_apart(tmp_path: Path):
    result = compare(write_run(tmp_path / "x" / "run"), write_run(tmp_path / "y" / "run"))
    assert [line.split()[1] for line in result.stdout.splitlines()[:2]] == [
        str(tmp_path / "x" / "run"), str(tmp_path / "y" / "run")
    ]  # fmt: skip


def test_bad_runs_end_with_one_line(tmp_path: Path):
    run, other = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    damaged = write_run(tmp_path / "c")
    (damaged / "result.json").write_text('{"test": ')
    (tmp_path / "folder.png").mkdir()
    for arguments, message in (
        ([run], "run: expected two or more different runs, got"),
        ([run, other, tmp_path / "b" / "." / "..", other], "run: expected two or more different runs, got"),
        ([run, tmp_path], f"run: expected the folder of a training run, got {tmp_path} without config.json"),
        ([run, damaged], "c/result.json: expected the result of a run, got: "),
        ([run, other, "--output", "curves.txt"], "output: expected a file name that ends in .png, .svg, .pdf, got"),
        ([run, other, "--output", tmp_path / "folder.png"], "output: expected a file that can be written"),
    ):
        result = compare(*arguments)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert message in line
