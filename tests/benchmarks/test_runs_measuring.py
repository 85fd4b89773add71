"""Whole runs are measured as they say: which epochs, which kernels, which caches, and beside what."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.run.progress import Progress
from typer.testing import CliRunner

from benchmarks.runs import commands, measure, peer
from benchmarks.runs.cases import EMPTY, GIT_COMMITS, MILLION, PEERS, QUALITY, WARM, Options, Ranked
from benchmarks.runs.device_time import DeviceTrace, busy_seconds, prepare
from benchmarks.runs.epoch import LAST, TRACED, epoch_seconds, measure_epoch, measure_gpu
from benchmarks.runs.ranking import PLAIN, inputs_of, measure_rankings, torch_call
from benchmarks.runs.synthetic import write_log
from tests.benchmarks.walks import SMALL, write_walks


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    data = write_walks(tmp_path_factory.mktemp("runs")) / "walks.parquet"
    return {"data": str(data), **SMALL.options, "num_negatives": 64, "device": "cpu"}


def event(begin: float, end: float, kind: str = "kernel", name: str = "add") -> dict[str, Any]:
    return {"cat": kind, "name": name, "ts": begin, "dur": end - begin}


def test_a_gpu_is_busy_once_at_a_time():
    """Microseconds: kernels beside each other, one inside another, a pause, a fill, and copies of which one is of the
    device."""
    events = [
        event(10, 20), event(0, 12), event(3, 5), event(30, 31, "gpu_memset", "Memset (Device)"),
        event(40, 44, "gpu_memcpy", "Memcpy DtoD (Device -> Device)"),
        event(50, 90, "gpu_memcpy", "Memcpy HtoD (Pageable -> Device)"),
        event(60, 95, "gpu_memcpy", "Memcpy DtoH (Device -> Pinned)"),
        event(0, 500, "cpu_op"), event(0, 500, "gpu_user_annotation"), {"ph": "M", "name": "process_name"},
    ]  # fmt: skip
    assert busy_seconds(events) == pytest.approx((20 + 1 + 4) / 1e6)
    assert busy_seconds(events[-3:]) is None


def test_a_log_is_the_same_at_every_call_and_has_every_item(tmp_path: Path):
    for name in ("a", "b"):
        write_log(tmp_path / name, users=200, events=10, items=700)
    table = pq.read_table(tmp_path / "a")
    assert table.equals(pq.read_table(tmp_path / "b"))
    users, items, times = (table[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    assert np.array_equal(np.unique(items), np.arange(700))
    assert np.array_equal(np.bincount(users), np.full(200, 10))
    assert all(np.array_equal(times[users == user], np.arange(10)) for user in (0, 199))
    assert len(np.unique(items[users == 0])) > 5  # items are spread over users


def test_epochs_that_count(tmp_path: Path):
    """Ends of epochs, of which the first two and those from the seventh on took long."""
    took = [9, 5, 1.0, 1.2, 1.4, 1.6, 7, 8]
    header = "epoch,step,train_loss,seconds\n"
    rows = [f"{epoch},{epoch},0.5,{end}" for epoch, end in enumerate(np.cumsum(took))]
    (tmp_path / "metrics.csv").write_text(header + "\n".join(rows) + "\n")
    assert epoch_seconds(tmp_path) == pytest.approx(1.3)


def test_the_trace_is_of_one_epochs_steps(options: Options, monkeypatch: pytest.MonkeyPatch):
    """And epochs are timed without one, first without validation."""
    told: list[str] = []
    update = Progress.update

    class Trace:
        seconds = 0.01

        def start(self) -> None:
            told.append("start")

        def stop(self) -> None:
            told.append("stop")

    def updated(progress: Progress, loss: float, metrics: dict[str, float], *arguments: Any, **named: Any) -> bool:
        best = update(progress, loss, metrics, *arguments, **named)
        told.append(f"{progress.epochs}{' validated' if metrics else ''}")
        return best

    monkeypatch.setattr(Progress, "update", updated)
    monkeypatch.setattr("benchmarks.runs.epoch.DeviceTrace", Trace)
    monkeypatch.setattr("benchmarks.runs.epoch.prepare", lambda: None)
    assert measure_gpu("torch", options) == 0.01
    assert told == [
        *(f"{epoch}" for epoch in range(1, TRACED)),
        "start",
        "stop",
        f"{TRACED}",
        f"{TRACED + 1} validated",
    ]
    told.clear()
    row = measure_epoch("torch", options)
    assert Progress.update is updated
    assert told[: LAST + 1] == [*(f"{epoch}" for epoch in range(1, LAST + 1)), f"{LAST + 1} validated"]
    assert told[LAST + 1 :] == [f"{epoch} validated" for epoch in range(1, LAST + 1)]
    assert row["steps"] == 4  # 60 users, 16 in a batch
    assert 0 < float(str(row["seconds"])) < 5
    assert 0 < float(str(row["whole_seconds"])) < 5


def test_a_trace_without_a_gpu_has_no_time():
    prepare()
    trace = DeviceTrace()
    trace.start()
    trace.stop()
    assert trace.seconds is None or torch.cuda.is_available()


@pytest.mark.parametrize("provider", ["torch", "jax", PLAIN])
def test_rankings_are_timed(provider: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.runs.ranking._ROUND_SECONDS", 0.001)
    cases = Ranked(4, 150, 8, k=3), Ranked(4, 150, 8, k=3, seen=5)
    rows = measure_rankings(provider, cases)
    assert [(row["dataset"], row["method"]) for row in rows] == [
        ("4 users, 150 items, D=8", "k=3"),
        ("4 users, 150 items, D=8", "k=3, 5 seen"),
    ]
    assert all(0 < float(str(row["ms"])) < 1000 for row in rows)


@pytest.mark.parametrize("seen", [0, 60])
def test_plain_ranking_finds_what_ours_does(seen: int):
    case = Ranked(6, 150, 8, k=40, seen=seen)
    inputs = inputs_of(case)
    assert inputs.seen is None if not seen else len(inputs.seen.item) > 300  # type: ignore[union-attr]
    ours, plain = (torch_call(case, inputs, plain=plain).call() for plain in (False, True))
    for mine, theirs in zip(ours, plain, strict=True):
        assert np.array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize("chosen", [GIT_COMMITS, MILLION, QUALITY, *(ours for ours, _ in PEERS.values())])
def test_the_command_line_says_every_option(chosen: Options):
    from cce_minus.recsys.cli.commands import build_app

    got: list[TrainConfig] = []
    app = build_app("torch", got.append, None)  # type: ignore[arg-type]
    options = {"data": "x.parquet", **chosen, "filter_seen": False, "out": "y"}
    ended = CliRunner().invoke(app, ["train", *commands.arguments(options)])
    assert ended.exit_code == 0, ended.output
    assert got == [TrainConfig(**options)]


def test_a_command_is_timed_in_a_process_of_its_own(options: Options, tmp_path: Path):
    row = commands.run_command("torch", {**options, "epochs": 2}, tmp_path, tmp_path / "caches")
    assert row["epochs"] == 2
    assert 0 < row["first_epoch_seconds"] < row["training_seconds"] < row["seconds"]  # type: ignore[operator]
    assert 0 <= float(str(row["test_ndcg@10"])) <= 1


def test_a_command_has_its_caches_and_fails_with_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(line: list[str], *, env: dict[str, str], **named: Any) -> Any:
        assert (Path(line[0]).name, line[1]) == ("cce-minus-jax", "train")
        assert [env[name] for name in commands.CACHES] == [str(tmp_path / name.lower()) for name in commands.CACHES]
        assert env["PATH"] == os.environ["PATH"]
        return subprocess.CompletedProcess(line, 2, stdout="a line\nerror: no such data\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(commands.CommandError, match=r"jax: the command ended with 2: a line\nerror: no such data$"):
        commands.run_command("jax", {"data": "x"}, tmp_path, tmp_path)


def test_caches_are_empty_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each command leaves a file in its caches and tells how many it found."""
    ran: list[tuple[int, Any]] = []

    def run_command(framework: str, options: Options, folder: Path, caches: Path) -> dict[str, object]:
        found = len(list(caches.glob("*"))) if caches.exists() else 0
        ran.append((found, options.get("epochs")))
        caches.mkdir(exist_ok=True)
        (caches / str(found)).touch()
        return {"seconds": found}

    monkeypatch.setattr(commands, "run_command", run_command)
    (tmp_path / "a").mkdir()
    rows = list(commands.from_empty_caches("jax", {"epochs": 10}, tmp_path / "a"))
    assert rows == [{"method": EMPTY, "seconds": 0}, {"method": WARM, "seconds": 1}]
    (tmp_path / "b").mkdir()
    assert commands.with_warm_caches("jax", {"epochs": 10}, tmp_path / "b") == {"method": WARM, "seconds": 1}
    assert ran == [(0, 1), (0, 10), (1, 10), (0, 1), (1, 10)]  # each begins with one that Python compiles for


def test_without_rectools_ours_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And it is said why theirs are not."""
    measured: list[tuple[Any, ...]] = []

    def alone(call: Any, *arguments: Any) -> Any:
        if call is peer.check_rectools:
            return call(*arguments)
        measured.append((call.__name__, arguments[0], arguments[1]["num_negatives"], arguments[1].get("negatives")))
        return {"seconds": 1.0}

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(measure, "alone", alone)
    monkeypatch.setattr(peer.importlib, "import_module", absent)
    said: list[str] = []
    rows = list(measure.measure("peer", ["torch", "rectools"], tmp_path, tmp_path, said.append))
    assert [(row["method"], row["framework"]) for row in rows] == [("256 negatives", "torch"), ("every item", "torch")]
    assert measured == [("measure_steps", "torch", 256, None), ("measure_steps", "torch", 0, "all")]
    assert len(said) == 2
    assert all("RecTools does not import (ImportError: No module named 'rectools" in line for line in said)
    assert all("needs pandas < 3 and pytorch-lightning" in line for line in said)
