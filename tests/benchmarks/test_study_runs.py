"""The study's trainings are the training command's, processes share them out, and stopped grids go on."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.run_directory import RunDirectory
from cce_minus.torch_impl.train import train
from typer.testing import CliRunner

from benchmarks.study import __main__ as study
from benchmarks.study import cells, parts
from benchmarks.study.cells import FULL, GROUPED, METHODS, Cell, Method, Run, grouped
from benchmarks.study.collect import row_of
from benchmarks.study.epoch_time import COLUMNS as EPOCH_COLUMNS
from benchmarks.study.epoch_time import EAGER, eager_training, measure, train_with
from benchmarks.study.epoch_time import add as add_epochs
from benchmarks.study.plots import epoch_figures
from benchmarks.study.pool import alone, train_all
from benchmarks.study.results import ResultsError, read
from benchmarks.study.training import prepared, train_run
from tests.benchmarks.walks import CPU, SMALL, write_walks

METRICS = ("test_ndcg@10", "test_hr@10", "valid_ndcg@10")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_walks(tmp_path_factory.mktemp("study"))


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
    expected = {f"test_{name}": result.test[name] for name in ("ndcg@10", "hr@10")} | {
        "valid_ndcg@10": result.valid["ndcg@10"]
    }
    assert {name: reached[name] for name in METRICS} == pytest.approx(
        {name: expected[name] for name in METRICS}, rel=1e-3
    )


def test_a_run_without_patience_stops(data: Path):
    cell = Cell(replace(SMALL, epochs=40), GROUPED, {"patience": 1, "learning_rate": 0.3})
    reached = train_run(Run(cell, 1), data, CPU)
    assert int(str(reached["epochs"])) == int(str(reached["best_epoch"])) + 2 < 40
    assert len(str(reached["valid_curve"]).split()) == reached["epochs"]


@pytest.mark.parametrize(
    "option", [{"train_on_valid": True, "patience": 0}, {"item_features": "x.parquet", "feature_columns": "genre"}]
)
def test_options_that_the_study_has_no_use_for_are_refused(option: dict[str, Any], data: Path):
    with pytest.raises(ConfigError, match=next(iter(option))):
        train_run(Run(Cell(SMALL, GROUPED, option), 1), data, CPU)


def test_a_cell_has_the_data_that_its_options_shape(data: Path):
    whole, frequent = (prepared(Cell(SMALL, GROUPED, changes), data) for changes in ({}, {"min_item_events": 5}))
    assert frequent.num_items < whole.num_items


def test_one_draw_for_a_batch_trains(data: Path):
    method = next(method for method in METHODS if method.one_draw)
    reached = train_run(Run(Cell(SMALL, method), seed=1), data, CPU)
    baseline = train_run(Run(Cell(replace(SMALL, epochs=1), method, {"learning_rate": 1e-6}), seed=1), data, CPU)
    assert float(str(reached["test_ndcg@10"])) > 1.5 * float(str(baseline["test_ndcg@10"]))


def test_processes_train_every_run_and_name_those_that_fail(data: Path):
    runs = [
        Run(Cell(SMALL, GROUPED), 1),
        Run(Cell(replace(SMALL, name="absent"), GROUPED), 1),
        Run(Cell(SMALL, GROUPED), 2),
    ]
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
    monkeypatch.setitem(parts.PARTS, "tiny", lambda: runs)
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


def test_rows_of_the_training_commands(data: Path, tmp_path: Path):
    config = replace(Cell(SMALL, GROUPED).config(data, 1), out=str(tmp_path / "run"), device="cpu", precision="fp32")
    result = train(config)
    path = tmp_path / "study.csv"
    collected = CliRunner().invoke(study.app, ["collect", str(tmp_path / "run"), "--csv", str(path), "--gpu", "none"])
    assert collected.exit_code == 0, collected.output
    (found,) = read(path)
    assert (found["framework"], found["epochs"], found["dataset"], found["gpu"]) == ("torch", "3", "walks", "none")
    assert float(found["test_ndcg@10"]) == pytest.approx(result.test["ndcg@10"], rel=1e-5)
    final = train(replace(config, train_on_valid=True, patience=0, epochs=2, out=str(tmp_path / "final")))
    assert row_of(tmp_path / "final")["test_ndcg@10"] == final.test["ndcg@10"]
    assert row_of(tmp_path / "final")["digest"] != row_of(tmp_path / "run")["digest"]
    with pytest.raises(ResultsError, match="expected a finished run"):
        row_of(tmp_path)


@pytest.mark.parametrize(("framework", "method"), [("torch", EAGER), ("torch", grouped(64)), ("jax", EAGER)], ids=str)
def test_epochs_of_the_training_commands_are_timed(
    framework: str, method: Method, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(cells.DATASETS, "walks", replace(SMALL, options=SMALL.options | {"precision": "fp32"}))
    began = time.perf_counter()
    # The method comes as a copy, as in a process of its own.
    with mock.patch("benchmarks.study.epoch_time.eager_training", wraps=eager_training) as eager:
        row = measure(framework, pickle.loads(pickle.dumps(method)), data, "walks")
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
    assert list(epoch_figures(read(path, EPOCH_COLUMNS))) == ["study_epochs.png"]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_eager_training_learns_what_ours_does(framework: str, data: Path, tmp_path: Path):
    """The same data, weights and batches, other draws: both come down to about the same loss, which an uncorrected one
    would not."""
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="a worker finds a GPU")
def test_a_worker_without_its_gpu_refuses(data: Path):
    """On the CPU a run would take hours, and its row would be of another machine."""
    run = Run(Cell(SMALL, GROUPED), 1)
    ((_, outcome),) = train_all([run], data, gpus=1, jobs=1, seconds=60)
    assert isinstance(outcome, RuntimeError)
    assert "GPU 0: not usable" in str(outcome)
