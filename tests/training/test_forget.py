"""Items and users that leave a run's folder, and what the run serves then."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError
from cce_minus.recsys.serving.forget import forget
from cce_minus.recsys.serving.served_run import ServedRun
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tests.training.commands import FRAMEWORKS


@pytest.fixture
def run(runs: dict[str, Path], data: Path, tmp_path: Path) -> Path:
    """A run that holds its log."""
    shutil.copytree(runs["torch"], tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    options = json.loads(config.read_text())
    config.write_text(json.dumps(options | {"data": f"{options['out']}/fitted_events.parquet", "min_user_events": 12}))
    shutil.copyfile(data / "events.parquet", tmp_path / "run" / "fitted_events.parquet")
    return tmp_path / "run"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_others_are_served_as_before(run: Path, framework: str):
    recommender: Any = importlib.import_module(f"cce_minus.{framework}_impl").Recommender
    kept = {"candidates": [f"i{item:02}" for item in range(40) if item not in (3, 39)]}
    history = {"sequences": [["i05", "i06", "i07"], ["i38"]]}
    expected = recommender.load(run, device="cpu").recommend(**history, **kept)
    weights, titles = load_file(run / "best.safetensors"), pq.read_table(run / "catalog.parquet")
    number = sum(item in ("i03", "i39") for item in pq.read_table(run / "fitted_events.parquet")["item_id"].to_pylist())
    assert number > 0
    told = forget(ServedRun.open(run), items=["i03", "i39"])
    assert told[:3] == [
        f"fitted_events.parquet: {number} events removed",
        "torch-checkpoints: removed; the run cannot be resumed",
        "catalog.parquet, best.safetensors: 2 items removed",
    ]
    left = [item for item in range(40) if item not in (3, 39)]
    for name, tensor in load_file(run / "best.safetensors").items():
        assert np.array_equal(tensor, weights[name][left] if name == "item_table" else weights[name])
    assert pq.read_table(run / "catalog.parquet").equals(titles.take(left))
    assert len(recommender.load(run, device="cpu").recommend(k=1)) == 60  # also of users with fewer events now
    found = recommender.load(run, device="cpu").recommend(**history)
    assert found.drop_columns(["score"]).equals(expected.drop_columns(["score"]))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)
    words = "".join(str(pq.read_table(path).to_pydict()) for path in run.rglob("*.parquet"))
    words += "".join(path.read_text() for path in run.rglob("*") if path.suffix in (".json", ".csv"))
    assert "i03" not in words
    assert "i02" in words


def test_users_leave_the_log_that_a_run_holds(run: Path):
    before = pq.read_table(run / "fitted_events.parquet")
    result = CliRunner().invoke(
        importlib.import_module("cce_minus.torch_impl.cli").app,
        ["forget", "--run", str(run), "--user", "3", "--user", "59"],
    )
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "fitted_events.parquet: 24 events removed"
    expected = before.filter(pa.array([user not in (3, 59) for user in before["user_id"].to_pylist()]))
    assert pq.read_table(run / "fitted_events.parquet").equals(expected)
    assert (run / "torch-checkpoints").exists()
    with pytest.raises(DataError, match=r"users: expected users of .*fitted_events.parquet \(58 of them\), got '3'"):
        forget(ServedRun.open(run), users=["3"])


@pytest.mark.parametrize(
    ("gone", "error", "message"),
    [
        ({}, ConfigError, "items: expected items or users to forget, got none"),
        ({"items": ["i03", "i77"]}, DataError, r"items: expected items of the catalog \(40 of them\), got 'i77'"),
        ({"items": [f"i{item:02}" for item in range(40)]}, ConfigError, "items: expected some that are left, got all"),
        ({"users": list(range(60))}, ConfigError, "users: expected some that are left, got all of the log"),
        ({"items": ["i03"], "users": [99]}, DataError, r"users: expected users of .* \(60 of them\), got 99"),
    ],
)
def test_what_is_refused_changes_nothing(run: Path, gone: dict[str, Any], error: type[Exception], message: str):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(error, match=message):
        forget(ServedRun.open(run), **gone)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_without_its_log_knows_no_users(runs: dict[str, Path]):
    with pytest.raises(ConfigError, match=r"users: expected a run that holds its log .*/events.parquet$"):
        forget(ServedRun.open(runs["torch"]), users=["3"])
