"""The demonstration on a tiny data set, and the verdict that decides its exit status."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cce_minus.recsys import TrainConfig
from pyarrow import csv
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.demo.__main__ import app
from benchmarks.demo.report import Entry, broken_promises
from benchmarks.demo.run import run_demo

USERS, ITEMS, LENGTH = 60, 40, 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Users who walk round the catalog in steps of 1, 2 or 3."""
    start = np.random.default_rng(0).integers(0, ITEMS, USERS)
    items = (start[:, None] + np.arange(LENGTH) * (1 + np.arange(USERS)[:, None] % 3)) % ITEMS
    columns = {
        "user_id": np.repeat(np.arange(USERS), LENGTH),
        "item_id": items.ravel(),
        "timestamp": np.tile(np.arange(LENGTH), USERS),
    }
    csv.write_csv(pa.table(columns), tmp_path / "walks.csv")
    return tmp_path / "walks.csv"


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=str(data), max_length=LENGTH, dim=16, num_blocks=1, dropout=0.1, num_negatives=20, group_size=16,
        batch_size=16,
        learning_rate=1e-2, warmup_steps=5, epochs=10, patience=10, device="cpu", out=str(tmp_path / "demo"),
    )  # fmt: skip


def test_demo_trains_both_and_keeps_its_promises(config: TrainConfig):
    printed = io.StringIO()
    assert run_demo(config, Console(file=printed, width=200)) == []
    text = printed.getvalue()
    for expected in ("popularity", "PyTorch", "JAX", "NDCG@10", "HR@10", "seconds", "recommended 5", "(at most 1e-04)"):
        assert expected in text
    out = Path(config.out)
    for name in ("initial.safetensors", "torch/best.safetensors", "jax/best.safetensors", "curves.png"):
        assert (out / name).stat().st_size > 0
    assert not (out / "step.safetensors").exists()


def test_a_model_that_learned_nothing_breaks_its_promise(config: TrainConfig):
    broken = run_demo(replace(config, epochs=1, learning_rate=1e-30), Console(file=io.StringIO()))
    assert [sentence.split(":")[0] for sentence in broken] == ["PyTorch", "JAX"]


def entry(ndcg: float) -> Entry:
    return Entry("model", {"ndcg@10": ndcg, "hr@10": 0.1}, [])


@pytest.mark.parametrize(
    ("ndcg", "difference", "expected"),
    [
        (0.05, 1e-4, []),
        (0.0399, 0.0, ["model: NDCG@10 is 0.0399, below 2 times popularity's (0.0400)"]),
        (float("nan"), 0.0, ["model: NDCG@10 is nan, below 2 times popularity's (0.0400)"]),
        (0.05, 2e-4, ["the losses of one step differ by 2.0e-04 relatively, more than 1e-04"]),
        (0.05, float("nan"), ["the losses of one step differ by nan relatively, more than 1e-04"]),
    ],
)
def test_broken_promises_are_named(ndcg: float, difference: float, expected: list[str]):
    assert broken_promises(entry(0.02), [entry(ndcg)], difference) == expected


def test_command_ends_with_status_1_and_the_broken_promise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.demo.run.run_demo", lambda config, console: ["it did not learn"])
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert "promise broken: it did not learn" in result.output


def test_command_replaces_an_earlier_demo_and_names_bad_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/demo/torch").mkdir(parents=True)
    result = CliRunner().invoke(app, ["--data", "nowhere.parquet"])
    assert result.exit_code == 2
    assert "nowhere.parquet" in result.output
    assert not (tmp_path / "runs/demo/torch").exists()
