"""Runs that went wrong: moved, damaged, diverged. Commands say so in one line, and what was good is kept."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.recsys import DivergedError, TrainConfig, read_metrics_log
from cce_minus.recsys.errors import LowMemoryError
from cce_minus.recsys.run.losses import EpochLosses
from cce_minus.recsys.run.weights_file import read_config, write_weights
from safetensors.numpy import load_file

from tests.training.commands import call, config_of, error_of, recommend, train_arguments

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]


def test_a_run_and_its_data_may_move(runs: dict[str, Path], data: Path, tmp_path: Path, framework: str):
    run, moved = tmp_path / "run", tmp_path / "moved.parquet"
    shutil.copytree(runs[framework], run)
    shutil.copyfile(data / "events.parquet", moved)
    expected = json.loads((run / "result.json").read_text())
    assert expected["weights"] == "best.safetensors"
    options = json.loads((run / "config.json").read_text())
    assert options["titles"] == str(data / "titles.parquet")
    gone = {"data": str(tmp_path / "gone.parquet"), "titles": str(tmp_path / "gone.csv")}
    (run / "config.json").write_text(json.dumps(options | gone))
    for command in (["recommend", "--user", "1"], ["evaluate"]):
        line = error_of(call(framework, *command, "--run", run))
        assert f"data: expected the events of the run, got no file {gone['data']}; pass --data" in line
    result = call(framework, "evaluate", "--run", run, "--data", moved, "--json")
    assert json.loads(result.output) == expected["test"]
    (row,) = recommend(framework, run, tmp_path / "top.json", "--user", 3, "--data", moved)
    (before,) = recommend(framework, runs[framework], tmp_path / "top.json", "--user", 3)
    assert row == before
    # A finished run resumed: the checkpoint is found in the new place, and nothing is trained.
    train = importlib.import_module(f"cce_minus.{framework}_impl.train").train
    config = TrainConfig.from_json(json.dumps(options))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = train(dataclasses.replace(config, data=str(moved), out=str(run), resume=True))
    assert (result.test, result.losses) == (expected["test"], expected["losses"])


def test_other_events_are_told_of(runs: dict[str, Path], data: Path, tmp_path: Path):
    events = pq.read_table(data / "events.parquet")
    pq.write_table(pa.concat_tables([events, events.slice(0, 1)]), tmp_path / "more.parquet")
    result = call("torch", "evaluate", "--run", runs["torch"], "--data", tmp_path / "more.parquet")
    assert result.exit_code == 0, result.output
    assert "other events than those that the run was trained on" in result.output


@pytest.mark.parametrize("name", ["config.json", "best.safetensors", "catalog.parquet", "checkpoints"])
def test_damaged_files_of_a_run_end_with_one_line(
    runs: dict[str, Path], data: Path, tmp_path: Path, framework: str, name: str
):
    run = tmp_path / "run"
    shutil.copytree(runs[framework], run)
    files = [run / name] if name != "checkpoints" else [*run.glob("*-checkpoints/**/*")]
    for file in files:
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if name != "checkpoints":
        assert name in error_of(call(framework, "recommend", "--run", run, "--user", 1))
        return
    paths = {option: str(data / getattr(config_of(run), option)) for option in ("data", "titles")}
    arguments = train_arguments(dataclasses.replace(config_of(run), resume=True, **paths))
    line = error_of(call(framework, *arguments))
    assert f"resume: expected a checkpoint that can be read, got {run}" in line


def test_export_into_what_is_no_folder_of_its_own_ends_with_one_line(runs: dict[str, Path], tmp_path: Path):
    pytest.importorskip("faiss")
    (tmp_path / "file").touch()
    for name in ("items.safetensors", "index.faiss"):
        (tmp_path / name / name).mkdir(parents=True)
    for to in (*map(tmp_path.joinpath, ("file", "file/x", "items.safetensors", "index.faiss")), runs["torch"]):
        assert "error: to: expected a folder" in error_of(call("torch", "export", "--run", runs["torch"], "--to", to))


def test_a_training_that_diverges_keeps_its_last_good_weights(
    train: Train, make_config: Make, monkeypatch: pytest.MonkeyPatch
):
    config = make_config(epochs=3)
    take = EpochLosses._take

    def diverge_and_take(self: EpochLosses, values: Any) -> None:
        # the second step of the second epoch and on, of four each
        is_bad = np.arange(len(values)) + self._first_step >= 5
        take(self, np.where(is_bad, np.nan, values))

    monkeypatch.setattr(EpochLosses, "_take", diverge_and_take)
    with pytest.raises(DivergedError, match=r"loss: .* got nan in epoch 1, step 1 \(step 5 of the run"):
        train(config)
    monkeypatch.undo()
    out = Path(config.out)
    weights = load_file(out / "best.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in weights.values())
    assert [row["epoch"] for row in read_metrics_log(out / "metrics.csv")] == [0]
    assert not (out / "result.json").exists()
    resumed = train(dataclasses.replace(config, epochs=1, resume=True))
    assert (resumed.best_epoch, len(resumed.losses)) == (0, 1)


def test_a_training_that_diverges_at_once_exits_with_1_and_leaves_no_folder(
    runs: dict[str, Path], tmp_path: Path, framework: str, make_config: Make
):
    config = make_config(epochs=1, init_weights=str(tmp_path / "huge.safetensors"))
    weights = load_file(runs["torch"] / "best.safetensors")
    shape = read_config(runs["torch"] / "best.safetensors")
    write_weights(
        str(config.init_weights), shape, {name: tensor * np.float32(1e30) for name, tensor in weights.items()}
    )
    line = error_of(call(framework, *train_arguments(config)), status=1)
    assert "loss: expected a finite number, got" in line
    assert "in epoch 0, step 0 " in line
    assert not Path(config.out).exists()


def test_a_log_with_other_items_and_users_is_served(runs: dict[str, Path], data: Path, tmp_path: Path, framework: str):
    """Events of items that the run does not know do as if they were not there."""
    popular = ("--user", 77, "--unknown-users", "popular")
    (own,) = recommend(framework, runs[framework], tmp_path / "popular.json", *popular)
    events = pq.read_table(data / "events.parquet")
    known = events.filter(pa.array([item != own["items"][0] for item in events["item_id"].to_pylist()]))
    columns = {"user_id": [3, 3, 77], "item_id": ["new", "newer", "new"], "timestamp": [2, 99, 1]}
    pq.write_table(pa.concat_tables([known, pa.table(columns)]), tmp_path / "more.parquet")
    pq.write_table(known, tmp_path / "known.parquet")
    told = "left out 3 of"
    found = []
    for name in ("more", "known"):
        served = ("--run", runs[framework], "--data", tmp_path / f"{name}.parquet")
        result = call(framework, "evaluate", *served, "--json")
        assert result.exit_code == 0, result.output
        assert result.stderr.count(told) == (name == "more")
        output = tmp_path / "top.json"
        result = call(framework, "recommend", *served, "--user", 3, "--output", output)
        assert result.stderr.count(told) == (name == "more")
        metrics = call(framework, "evaluate", *served, "--json").stdout
        found.append((json.loads(metrics), json.loads(output.read_text())))
        assert "got '77', 1 of 1 users" in error_of(call(framework, "recommend", *served, "--user", 77))
        # training events are the run's own, though the users are those of the log
        assert recommend(framework, runs[framework], output, *popular, *served[2:]) == [own]
    assert found[0] == found[1]
    result = call(framework, "evaluate", "--run", runs[framework], "--data", tmp_path / "more.parquet")
    assert "of 2 items that the run does not know ('new', 'newer'); 1 of 61 users have no other" in result.stderr


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("torch", MemoryError()),
        ("torch", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        ("torch", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")),
        ("jax", MemoryError()),
        ("jax", RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")),
        ("jax", RuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes.")),
    ],
)
def test_memory_that_runs_out_is_told_with_what_takes_less(name: str, error: Exception):
    enough_memory = importlib.import_module(f"cce_minus.{name}_impl.devices").enough_memory
    with pytest.raises(LowMemoryError, match=r"^memory: .*dim, .*table_dtype, table_on\), got: "), enough_memory():
        raise error
    with pytest.raises(RuntimeError, match=r"^another$"), enough_memory():
        raise RuntimeError("another")
