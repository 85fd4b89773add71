"""Rows of whole runs are replaced, shown with what was aimed at, and drawn; what cannot be measured is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.runs import __main__ as runs
from benchmarks.runs.cases import EMPTY, RANKINGS, WARM
from benchmarks.runs.results import COLUMNS, ResultsError, add, read, versions
from benchmarks.runs.table import markdown

MACHINE: dict[str, Any] = {"gpu": "a GPU", "cores": 16, "python": "3.12.3", "torch": "2.11.0", "triton": "3.6.0"}
MACHINE |= {"jax": "0.11.2", "commit": "abc1234"}


def row(
    part: str, method: str, framework: str = "torch", dataset: str = "git_commits", **values: Any
) -> dict[str, Any]:
    return {"part": part, "dataset": dataset, "method": method, "framework": framework, **MACHINE, **values}


def epoch(framework: str, seconds: float, **values: Any) -> dict[str, Any]:
    own = {"steps": 66, "gpu_seconds": 0.2, "whole_seconds": 0.3, **values}
    return row("epoch", "1024 negatives", framework, seconds=seconds, **own)


def whole_run(part: str, method: str, framework: str, seconds: float, ndcg: float, dataset: str) -> dict[str, Any]:
    own = {"epochs": 10, "first_epoch_seconds": 3.0, "training_seconds": 8.0, "test_ndcg@10": ndcg}
    return row(part, method, framework, dataset, seconds=seconds, **own)


def lines(rows: list[dict[str, Any]], path: Path) -> list[str]:
    add(path, rows)
    return markdown(read(path)).splitlines()


def test_rows_are_replaced_whole(tmp_path: Path):
    path = tmp_path / "runs.csv"
    add(path, [epoch("torch", 0.3), epoch("jax", 0.4)])
    add(path, [{**epoch("torch", 0.25), "gpu_seconds": None}])
    found = {each["framework"]: each for each in read(path)}
    assert {name: each["seconds"] for name, each in found.items()} == {"torch": "0.25", "jax": "0.4"}
    assert found["torch"]["gpu_seconds"] == ""  # and not the old row's
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="other columns"):
        read(path)


def test_every_row_tells_its_machine():
    told = versions("abc1234")
    assert set(told) <= set(COLUMNS)
    assert told["commit"] == "abc1234"
    assert all(told[name] for name in ("gpu", "cores", "python", "torch", "triton", "jax"))


def test_an_epoch_is_shown_over_the_gpu(tmp_path: Path):
    shown = lines([epoch("torch", 0.23), epoch("jax", 0.26, whole_seconds=0.31)], tmp_path / "runs.csv")
    assert "| git_commits | 1024 negatives | PyTorch | 66 | 0.200 | 0.230 | 1.15 | 1.2 | 0.300 | 1.50 | 1.6 |" in shown
    assert any("| JAX | 66 | 0.200 | 0.260 | 1.30 | 1.2, missed | 0.310 | 1.55 | 1.6 |" in line for line in shown)
    assert shown[-1] == ("a GPU, 16 cores, Python 3.12.3, torch 2.11.0, triton 3.6.0, jax 0.11.2, commit abc1234")


def test_an_epoch_without_a_trace_has_no_ratio(tmp_path: Path):
    shown = lines([{**epoch("torch", 0.23), "gpu_seconds": None}], tmp_path / "runs.csv")
    assert "| git_commits | 1024 negatives | PyTorch | 66 |  | 0.230 |  | 1.2 | 0.300 |  | 1.6 |" in shown


def test_commands_are_shown_with_aims_of_their_own(tmp_path: Path):
    rows = [
        whole_run("command", WARM, "torch", 14.0, 0.3, "git_commits"),
        whole_run("command", EMPTY, "torch", 31.0, 0.3, "git_commits"),
        whole_run("million", WARM, "jax", 22.5, 0.0, "million"),
        whole_run("quality", WARM, "jax", 34.0, 0.0425, "amazon_beauty"),
        whole_run("quality", WARM, "torch", 34.0, 0.0435, "amazon_beauty"),
    ]
    shown = [line for line in lines(rows, tmp_path / "runs.csv") if " caches | " in line]
    assert [line.split(" | ")[1:5] for line in shown] == [
        [EMPTY, "PyTorch", "31.0", "30, missed"],
        [WARM, "PyTorch", "14.0", "15"],
        [WARM, "JAX", "22.5", "22, missed"],
        [WARM, "PyTorch", "34.0", "25, missed"],
        [WARM, "JAX", "34.0", "35"],
    ]
    assert "| 0.0435 |" in shown[3]
    assert "| 0.0425 (at least 0.043: missed) |" in shown[4]


def test_rankings_keep_their_order(tmp_path: Path):
    rows = [
        row("ranking", case.method, provider, case.dataset, ms=1.5, mib=20.0)
        for case in reversed(RANKINGS)
        for provider in ("plain", "torch")
    ]
    shown = [line for line in lines(rows, tmp_path / "runs.csv") if "users" in line and "| 1.50 | 20 |" in line]
    assert [line.split(" | ")[1] for line in shown[::2]] == [case.method for case in RANKINGS]
    assert [line.split(" | ")[2] for line in shown[:2]] == ["PyTorch", "plain PyTorch"]
    assert shown[0].startswith("| 512 users, 1M items, D=64 | k=10 |")
    assert shown[6].startswith("| 256 users, 136k items, D=128 | k=10 |")


def drawn(rows: list[dict[str, Any]], folder: Path) -> set[str]:
    folder.mkdir()
    add(folder / "runs.csv", rows)
    ended = CliRunner().invoke(runs.app, ["plot", "--csv", str(folder / "runs.csv"), "--out", str(folder)])
    assert ended.exit_code == 0, ended.output
    images = list(folder.glob("*.png"))
    assert all(image.stat().st_size > 8_000 for image in images)
    return {image.name for image in images}


def test_images_are_drawn_as_far_as_rows_go(tmp_path: Path):
    peers = [row("peer", "every item", name, seconds=1) for name in ("torch", "rectools")]
    untraced = {**epoch("torch", 0.25), "gpu_seconds": None}
    assert drawn([untraced, *peers], tmp_path / "a") == {"runs_peer.png"}
    commands = [whole_run("command", method, "jax", 14.0, 0.3, "git_commits") for method in (EMPTY, WARM)]
    rankings = [row("ranking", case.method, "jax", case.dataset, ms=1.5, mib=None) for case in RANKINGS]
    assert drawn([epoch("torch", 0.25), *commands, *rankings], tmp_path / "b") == {
        "runs_epoch.png",
        "runs_commands.png",
        "runs_ranking.png",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "epochs"], "parts: expected some of epoch, command"),
        (["--providers", "tensorflow"], "providers: expected some of torch, jax"),
        (["--parts", "million,quality"], "data: expected amazon_beauty.parquet"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], message: str, tmp_path: Path):
    refused = CliRunner().invoke(runs.app, ["run", "--data", str(tmp_path), *arguments])
    assert refused.exit_code == 2
    assert message in refused.output


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def measure(part: str, providers: list[str], *rest: object):
        yield row(part, "a", providers[0], seconds=1.0)
        if part == "million":
            raise RuntimeError("no memory")
        yield row(part, "b", providers[0], seconds=1.0)

    monkeypatch.setattr("benchmarks.runs.measure.measure", measure)
    path = tmp_path / "runs.csv"
    ended = CliRunner().invoke(
        runs.app,
        ["run", "--data", str(tmp_path), "--parts", "million,ranking", "--providers", "jax", "--csv", str(path)],
    )
    assert ended.exit_code == 1
    assert "failed: million: RuntimeError('no memory')" in ended.output
    assert {(each["part"], each["method"]) for each in read(path)} == {
        ("million", "a"),
        ("ranking", "a"),
        ("ranking", "b"),
    }


@pytest.mark.skipif(not runs.CSV.exists(), reason="nothing has been measured yet")
def test_the_readme_has_the_tables_of_the_rows():
    assert markdown(read(runs.CSV)) in (Path(runs.__file__).parent / "README.md").read_text()
