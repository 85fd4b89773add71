"""The study: its trainings are the training command's, stopped grids go on, and its figures follow from the rows."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.recsys.run_directory import RunDirectory
from cce_minus.torch_impl.train import train
from scipy import stats
from typer.testing import CliRunner

from benchmarks.study import __main__ as study
from benchmarks.study import cells
from benchmarks.study.cells import FULL, GROUPED, INDEPENDENT, METHODS, Cell, Dataset, Method, Run, grouped, select
from benchmarks.study.collect import row_of
from benchmarks.study.epoch_time import COLUMNS as EPOCH_COLUMNS
from benchmarks.study.epoch_time import EAGER, eager_training, measure, train_with
from benchmarks.study.epoch_time import add as add_epochs
from benchmarks.study.intervals import interval, relative_difference
from benchmarks.study.plots import draw_epochs
from benchmarks.study.pool import alone, train_all
from benchmarks.study.results import COLUMNS, ResultsError, add, add_times, read
from benchmarks.study.table import EAGER_LIMIT, eager_bytes, seconds_to_best
from benchmarks.study.training import train_run

CPU = torch.device("cpu")
USERS, ITEMS, LENGTH = 60, 300, 10
SMALL = Dataset(
    "walks",
    3,
    {"dim": 16, "num_blocks": 1, "num_heads": 2, "max_length": 8, "batch_size": 16, "learning_rate": 1e-2, "dropout": 0.1}
    | {"warmup_steps": 5},
)
METRICS = ("test_ndcg@10", "test_hr@10", "valid_ndcg@10")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who walk round the first 40 items in steps of their own; the others are drawn once each and make room for negatives."""
    rng = np.random.default_rng(0)
    items = (rng.integers(0, 40, USERS)[:, None] + np.arange(LENGTH) * (1 + np.arange(USERS)[:, None] % 3)) % 40
    items = np.concatenate([np.arange(ITEMS).reshape(USERS, -1), items], axis=1)
    length = items.shape[1]
    table = {
        "user_id": np.repeat(np.arange(USERS), length),
        "item_id": items.ravel(),
        "timestamp": np.tile(np.arange(length), USERS),
    }
    folder = tmp_path_factory.mktemp("study")
    pq.write_table(pa.table(table), folder / "walks.parquet")
    return folder


def row(
    method: str = GROUPED.name, dataset: str = "nowplaying", seed: int = 1, ndcg: float = 0.05, **changes: object
) -> dict[str, object]:
    values = dict.fromkeys(COLUMNS, "") | {
        "dataset": dataset, "method": method, "framework": "torch", "seed": seed, "digest": f"{method} on {dataset}",
        "epochs": 3, "best_epoch": 1, "steps_per_epoch": 100, "valid_ndcg@10": ndcg, "valid_hr@10": 2 * ndcg, "test_ndcg@10": ndcg,
        "test_hr@10": 2 * ndcg, "test_coverage@10": 0.5, "test_surprisal@10": 0.5, "valid_curve": "0.01 0.03 0.02", "train_seconds": 30.0,
    }  # fmt: skip
    return values | changes


@pytest.mark.parametrize(
    ("method", "precision"),
    [(FULL, "fp32"), (GROUPED, "bf16"), (METHODS[-1], "fp32")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_run_is_that_of_the_training_command(method: Method, precision: str, data: Path, tmp_path: Path):
    run = Run(Cell(SMALL, method, {"precision": precision}), seed=3)
    reached = train_run(run, data, CPU)
    config = replace(run.cell.config(data, 3), out=str(tmp_path / "run"), device="cpu")
    result = train(config)
    assert reached["best_epoch"] == result.best_epoch
    assert reached["train_loss"] == pytest.approx(result.losses[result.best_epoch], rel=1e-5)
    expected = {f"test_{name}": result.test[name] for name in ("ndcg@10", "hr@10")} | {"valid_ndcg@10": result.valid["ndcg@10"]}
    assert {name: reached[name] for name in METRICS} == pytest.approx({name: expected[name] for name in METRICS}, rel=1e-3)


def test_a_run_without_patience_stops(data: Path):
    cell = Cell(replace(SMALL, epochs=40), GROUPED, {"patience": 1, "learning_rate": 0.3})
    reached = train_run(Run(cell, 1), data, CPU)
    assert int(str(reached["epochs"])) == int(str(reached["best_epoch"])) + 2 < 40
    assert len(str(reached["valid_curve"]).split()) == reached["epochs"]


def test_one_draw_for_a_batch_trains(data: Path):
    method = next(method for method in METHODS if method.one_draw)
    reached = train_run(Run(Cell(SMALL, method), seed=1), data, CPU)
    baseline = train_run(Run(Cell(replace(SMALL, epochs=1), method, {"learning_rate": 1e-6}), seed=1), data, CPU)
    assert float(str(reached["test_ndcg@10"])) > 1.5 * float(str(baseline["test_ndcg@10"]))


def test_processes_train_every_run_and_name_those_that_fail(data: Path):
    runs = [Run(Cell(SMALL, GROUPED), 1), Run(Cell(replace(SMALL, name="absent"), GROUPED), 1), Run(Cell(SMALL, GROUPED), 2)]
    ended = {run.key: outcome for run, outcome in train_all(runs, data, gpus=0, jobs=2, seconds=60)}
    assert set(ended) == {run.key for run in runs}
    assert isinstance(ended[runs[1].key], Exception)
    alone = train_run(runs[2], data, CPU)
    in_pool = ended[runs[2].key]
    assert isinstance(in_pool, dict)
    assert {name: in_pool[name] for name in METRICS} == pytest.approx({name: alone[name] for name in METRICS}, rel=1e-3)


def test_a_process_of_its_own_returns_what_its_call_does():
    assert alone(os.getpid) != os.getpid()


def test_no_run_begins_after_its_time(data: Path):
    assert list(train_all([Run(Cell(SMALL, GROUPED), 1)], data, gpus=0, jobs=1, seconds=0)) == []


def test_a_stopped_grid_goes_on_with_what_is_missing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [Run(Cell(SMALL, method), seed) for seed in (1, 2) for method in (FULL, GROUPED)]
    monkeypatch.setitem(cells.PARTS, "tiny", lambda: runs)
    csv = tmp_path / "study.csv"
    trained: list[tuple[str, str]] = []

    def train_some(todo: list[Run], *args: object, **options: object):
        for run in todo[:3]:
            trained.append(run.key)
            yield run, train_run(run, data, CPU)

    monkeypatch.setattr("benchmarks.study.pool.train_all", train_some)
    arguments = ["run", "--data", str(data), "--parts", "tiny", "--csv", str(csv), "--commit", "abc"]
    first = CliRunner().invoke(study.app, arguments)
    assert first.exit_code == 0, first.output
    assert "3 runs trained, 0 failed, 1 left" in first.output
    second = CliRunner().invoke(study.app, arguments)
    assert "1 runs trained, 0 failed, 0 left" in second.output
    assert trained == [run.key for run in runs]
    rows = read(csv)
    assert len(rows) == 4
    assert {(r["method"], r["negatives"], r["num_negatives"], r["group_size"]) for r in rows} == {
        (FULL.name, "all", "", ""),
        (GROUPED.name, "uniform", "256", "128"),
    }


def test_every_option_of_a_cell_has_its_own_digest():
    digests = {run.cell.digest for part in cells.PARTS.values() for run in part()}
    named = {(run.cell.dataset.name, run.cell.method.name) for part in cells.PARTS.values() for run in part()}
    assert len(digests) == len(named)
    digest = Cell(SMALL, GROUPED).digest
    others = {
        "dropout": 0.2,
        "num_negatives": 20,
        "group_size": 64,
        "shuffle_rows": False,
        "logq_correction": False,
        "precision": "fp32",
    }
    others |= {"dim": 32, "max_length": 7, "epochs": 4, "patience": 2, "eval_every": 2, "batch_size": 8, "split": "sessions"}
    changed = [
        Cell(SMALL, replace(GROUPED, options={**GROUPED.options, name: value})).digest
        for name, value in list(others.items())[1:5]
    ]
    changed += [Cell(SMALL, GROUPED, {name: value}).digest for name, value in others.items() if name not in GROUPED.options]
    changed += [Cell(SMALL, replace(GROUPED, one_draw=True)).digest, Cell(replace(SMALL, name="others"), GROUPED).digest]
    assert digest not in changed
    assert Cell(SMALL, grouped(256)) == Cell(SMALL, GROUPED)


def test_unknown_parts_and_data_sets_are_named():
    with pytest.raises(KeyError, match="part: expected one of losses"):
        select(["nothing"])
    with pytest.raises(KeyError, match="data set: expected one of nowplaying"):
        select(["losses"], ["nothing"])
    assert {run.cell.dataset.name for run in select(["negatives"], ["git_commits"])} == {"git_commits"}


def test_rows_replace_those_of_the_same_run(tmp_path: Path):
    path = tmp_path / "study.csv"
    add(path, [row(seed=1, ndcg=0.1), row(seed=2, ndcg=0.2), row(INDEPENDENT.name, seed=1, ndcg=0.3)])
    add(path, [row(seed=1, ndcg=0.4)])
    assert [r["test_ndcg@10"] for r in read(path)] == ["0.4", "0.2", "0.3"]
    add_times(path, f"{GROUPED.name} on nowplaying", {"loss_ms": 0.5, "loss_mib": 8.0, "step_ms": 2.0, "step_mib": 90.0})
    assert [r["loss_ms"] for r in read(path)] == ["0.5", "0.5", ""]
    timed = read(path)[0]
    assert seconds_to_best(timed, "loss_ms") == pytest.approx(2 * 100 * 0.5 / 1000)
    add(path, [row(seed=9)])
    assert [r["loss_ms"] for r in read(path)] == ["0.5", "0.5", "0.5", ""]  # a seed trained later takes the times of its cell
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="other columns"):
        read(path)


def test_intervals_are_those_of_students_t():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)  # t of 2 degrees of freedom, 97.5%
    assert found.low == pytest.approx(4.0 - found.high)
    assert interval([1.0]).high == math.inf


def test_relative_differences_are_welchs():
    """As the test of a / b - 1 = 0 of scipy's unequal-variance t-test, where the means are equal and the ratio's error is the difference's."""
    a, b = [0.9, 1.2, 0.9, 1.0], [0.95, 1.05, 1.0]
    rows, reference = ([{"test_ndcg@10": str(value)} for value in values] for values in (a, b))
    found = relative_difference(rows, reference)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)  # pyright: ignore[reportAttributeAccessIssue]
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), rel=1e-9)
    doubled = relative_difference([{"test_ndcg@10": str(2 * value)} for value in a], reference)
    assert doubled.mean == pytest.approx(1.0)
    assert doubled.high - doubled.mean == pytest.approx(2 * (found.high - found.mean), rel=1e-9)
    assert relative_difference(rows, reference[:1]).high == math.inf


def test_table_and_images_come_from_the_rows(tmp_path: Path):
    path = tmp_path / "study.csv"
    times: dict[str, Any] = {"loss_ms": 0.5, "loss_mib": 8.0, "step_ms": 2.0, "step_mib": 90.0}
    levels = {FULL.name: 0.05, GROUPED.name: 0.049, INDEPENDENT.name: 0.051, grouped(1024).name: 0.05}
    add(path, [row(name, seed=seed, ndcg=ndcg + seed / 1e4, **times) for name, ndcg in levels.items() for seed in (1, 2, 3)])
    for k in (256, 4096):
        add(path, [row(cells.balanced(128, k, 200).name, "git_commits", num_negatives=k, dim=128, rows=20_000, **times)])
    assert [eager_bytes(r) > EAGER_LIMIT for r in read(path) if r["dataset"] == "git_commits"] == [False, True]
    shown = CliRunner().invoke(study.app, ["table", "--csv", str(path)])
    assert shown.exit_code == 0, shown.output
    line = next(line for line in shown.output.splitlines() if line.startswith(f"| {GROUPED.name} |"))
    assert "| 3 | 0.0492 ± 0.0002 |" in line
    assert "| 98.0% ± 0.4% |" in line
    assert "| 0.500 | 2.000 | 0.10 | 0.40 | 8 | 0.50 |" in line
    drawn = CliRunner().invoke(study.app, ["plot", "--csv", str(path), "--out", str(tmp_path)])
    assert drawn.exit_code == 0, drawn.output
    for name in ("study_losses.png", "study_time.png", "study_negatives.png", "study_balance.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_rows_of_an_older_grid_are_refused(tmp_path: Path):
    path = tmp_path / "study.csv"
    add(path, [row(seed=1), row(seed=2, digest="another")])
    for command in (["table"], ["plot", "--out", str(tmp_path)]):
        refused = CliRunner().invoke(study.app, [*command, "--csv", str(path)])
        assert refused.exit_code == 2
        assert "expected rows of one cell" in refused.output


def test_rows_of_the_training_commands(data: Path, tmp_path: Path):
    config = replace(Cell(SMALL, GROUPED).config(data, 1), out=str(tmp_path / "run"), device="cpu", precision="fp32")
    result = train(config)
    path = tmp_path / "study.csv"
    collected = CliRunner().invoke(study.app, ["collect", str(tmp_path / "run"), "--csv", str(path), "--gpu", "none"])
    assert collected.exit_code == 0, collected.output
    (found,) = read(path)
    assert (found["framework"], found["epochs"], found["dataset"], found["gpu"]) == ("torch", "3", "walks", "none")
    assert float(found["test_ndcg@10"]) == pytest.approx(result.test["ndcg@10"], rel=1e-5)
    final = train(replace(config, train_on_valid=True, patience=5, epochs=2, out=str(tmp_path / "final")))
    assert row_of(tmp_path / "final")["test_ndcg@10"] == final.test["ndcg@10"]
    assert row_of(tmp_path / "final")["digest"] != row_of(tmp_path / "run")["digest"]
    with pytest.raises(ResultsError, match="expected a finished run"):
        row_of(tmp_path)


@pytest.mark.parametrize(("framework", "method"), [("torch", EAGER), ("torch", grouped(64)), ("jax", EAGER)], ids=str)
def test_epochs_of_the_training_commands_are_timed(
    framework: str, method: Method, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(cells.DATASETS, "walks", SMALL)
    began = time.perf_counter()
    # The method comes as a copy, as in a process of its own.
    with mock.patch("benchmarks.study.epoch_time.eager_training", wraps=eager_training) as eager:
        row = measure(framework, pickle.loads(pickle.dumps(method)), data, "walks", {"precision": "fp32"})
    assert eager.called == (method == EAGER)
    took = time.perf_counter() - began
    assert row["steps"] == 4  # 60 users, 16 in a batch
    seconds = {name: float(str(row[name])) for name in ("epoch_seconds", "training_seconds", "batches_seconds")}
    assert all(0 < value < took for value in seconds.values())
    assert seconds["batches_seconds"] < seconds["training_seconds"]
    path = tmp_path / "study_epochs.csv"
    add_epochs(path, [row])
    add_epochs(path, [row])
    assert len(read(path, EPOCH_COLUMNS)) == 1
    assert draw_epochs(read(path, EPOCH_COLUMNS), tmp_path).stat().st_size > 5_000


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_eager_training_learns_what_ours_does(framework: str, data: Path, tmp_path: Path):
    """The same data, weights and batches, other draws: both come down to about the same loss, which an uncorrected one would not."""
    config = Cell(SMALL, Method("", {"num_negatives": 64, "group_size": 1}), {"precision": "fp32"}).config(data, 1)
    final: list[str] = []
    for eager in (False, True):
        own = replace(config, out=str(tmp_path / str(eager)), device="cpu")
        with eager_training(framework) if eager else contextlib.nullcontext():
            train_with(framework, own)
        final.append(RunDirectory(tmp_path / str(eager), framework).result.read_text())
    ours, theirs = (json.loads(text)["losses"] for text in final)
    assert ours != theirs
    assert theirs == pytest.approx(ours, rel=0.03)


def test_the_readme_has_the_tables_of_the_rows():
    folder = Path(study.__file__).parent
    shown = CliRunner().invoke(study.app, ["table"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("\n|") > 40
    assert shown.output.strip() in (folder / "README.md").read_text()


def test_the_rows_are_of_the_grid():
    """A row whose cell is no longer in the grid would be taken for one that is, by its method's name."""
    grid = {(run.cell.dataset.name, run.cell.method.name, run.cell.digest) for part in cells.PARTS.values() for run in part()}
    rows = [row for row in read(study.CSV) if not row["method"].startswith("training command")]
    assert {(row["dataset"], row["method"], row["digest"]) for row in rows} <= grid
    assert rows
