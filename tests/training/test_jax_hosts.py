"""JAX's training in several processes, as on several hosts: it is that of one process with as many devices."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from cce_minus.jax_impl import Recommender, processes
from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.recsys.run.checkpoint_file import read_checkpoint
from safetensors.numpy import load_file

from tests.training.hosts import by_slurm, commands, results_of

Make = Callable[..., TrainConfig]
CHECKPOINT = "jax-checkpoints/last.safetensors"

OPTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "each has all of the table, one device a process": (1, {"negatives": "all"}),
    "each has a part of the table, two devices a process": (
        2, {"num_negatives": 8, "group_size": 128, "item_optimizer": "rowwise-adagrad"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("devices", "options"), OPTIONS.values(), ids=OPTIONS)
def test_two_processes_train_as_one(make_config: Make, tmp_path: Path, devices: int, options: dict[str, Any]):
    one, two, left, resumed = (
        make_config(name, devices=2 * devices, epochs=epochs, dropout=0.0, **options)
        for name, epochs in (("one", 2), ("two", 2), ("left", 1), ("resumed", 1))
    )
    goes_on = replace(resumed, epochs=2, resume=True, devices=1)  # which of several processes is left out
    first, second = results_of(tmp_path, [[two, left, resumed, goes_on]] * 2, devices)
    with_others = replace(left, epochs=2, resume=True, devices=1 if devices == 1 else 2 * devices)
    (alone,) = results_of(tmp_path, [[one, with_others]], 2 * devices)
    for got in (first[0], first[3], alone[1]):
        np.testing.assert_allclose(got["losses"], alone[0]["losses"], rtol=2e-5)
        assert got["test"] == pytest.approx(alone[0]["test"], abs=0.02)
    for got, other in zip(first, second, strict=True):
        assert (other["losses"], other["test"]) == (got["losses"], got["test"])
    assert first[0]["tells"]
    assert first[0]["events"]
    assert not any(other["tells"] or other["events"] for other in second)
    for name in ("best.safetensors", CHECKPOINT):
        expected = load_file(Path(one.out) / name)
        for config in (two, resumed):
            got = load_file(Path(config.out) / name)
            assert got.keys() == expected.keys()
            for array, numbers in expected.items():
                np.testing.assert_allclose(got[array], numbers, atol=1e-4, err_msg=array)


def test_what_one_process_refuses_is_raised_on_all(make_config: Make, tmp_path: Path):
    config = make_config(devices=2, negatives="all")
    fewer = tmp_path / "fewer.parquet"
    table = pq.read_table(config.data)
    pq.write_table(table.slice(0, len(table) - 12), fewer)
    others = {
        "^devices: expected the same options, .* got others than process 0's on 1$": replace(config, seed=1),
        "^devices: expected the same .* events .* on 1$": replace(config, data=str(fewer)),
        r"none.parquet.*\(process 1\)$": replace(config, data=str(tmp_path / "none.parquet")),
        "^devices: expected 2, those of all 2 processes, or none given, got 3": replace(config, devices=3),
        "^out: expected one folder of all processes, got none of the first one": replace(
            config, out=str(tmp_path / "elsewhere")
        ),
    }
    first, second = results_of(tmp_path, [[config] * len(others), list(others.values())], 1)
    for message, at_first, at_second in zip(others, first, second, strict=True):
        assert re.search(message, at_first["error"])
        assert at_second["error"] == at_first["error"].removesuffix(" (process 1)")
    assert not Path(config.out).exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_process_that_is_killed_ends_the_other_and_is_named(make_config: Make):
    """Both started by SLURM."""
    config = make_config(devices=2, negatives="all", epochs=10**6, patience=10**6)
    heard, killed = commands(config, 2, started=by_slurm, silence=8)
    while not (Path(config.out) / CHECKPOINT).exists():
        assert heard.poll() is None, heard.communicate()[1]
        time.sleep(0.05)
    killed.kill()
    began = time.monotonic()
    told = heard.communicate(timeout=150)[1]
    assert time.monotonic() - began < 60
    assert heard.returncode != 0
    assert "error: devices: expected 2 processes that end together, got one that has ended" in told
    assert "Task 1 heartbeat timeout" in told
    assert "epoch 0 " in told
    assert "epoch 0 " not in killed.communicate()[1]
    assert read_checkpoint(Path(config.out) / CHECKPOINT)[1].epochs > 0


def test_a_process_that_does_not_come_ends_the_other(make_config: Make):
    config = make_config(devices=2, negatives="all")
    waits, missing = commands(config, 2, meeting=3)
    missing.kill()
    told = waits.communicate(timeout=60)[1]
    assert waits.returncode != 0
    assert "process 0 of 2 meets the others at localhost:" in told
    assert "DEADLINE_EXCEEDED" in told
    missing.communicate()
    assert not Path(config.out).exists()


def test_processes_are_joined_where_they_were_started_together(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    one, two = make_config(), make_config(devices=2)
    assert not processes._are_started(two)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not processes._are_started(two)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert processes._are_started(two)
    assert not processes._are_started(one), "a training each"
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    assert processes._are_started(one)
    jax.devices()
    for variables, message in (({}, "before JAX is used; got: "), ({"JAX_NUM_PROCESSES": "x"}, "expected whole")):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=message), processes.joined(one):
            pass


def test_a_log_in_memory_is_refused_where_several_processes_were_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(ConfigError, match=r"^log: expected a path that all processes read, got a table in memory"):
        Recommender(out="run").fit({"user_id": [1], "item_id": [1], "timestamp": [1]})
