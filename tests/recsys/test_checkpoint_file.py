"""The checkpoint of a training: what comes back, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.checkpoint_file import NAME, SCHEMA, read_checkpoint, require_arrays, write_checkpoint
from cce_minus.recsys.run.progress import Progress
from cce_minus.recsys.run.run_directory import RunDirectory
from cce_minus.recsys.run.tensor_file import Stored
from safetensors.numpy import save_file

PROGRESS = Progress([2.5, 1 / 3], 1, {"ndcg@10": 0.1 + 0.2}, 0, 12.25)
ARRAYS = {
    "model/table": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "optimizer/step": np.array(7, np.int32),  # a number without dimensions
    "optimizer/empty": np.zeros((0, 3), np.float32),
    "frequencies": np.array([np.nan, np.inf, -0.0], np.float32),
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path, "torch")
    run.checkpoints.mkdir()
    return run


def refused(path: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def shapes(arrays: Mapping[str, np.ndarray | Stored]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}


def test_a_state_comes_back_bit_for_bit(run: RunDirectory):
    for progress in (Progress(), PROGRESS):  # the second takes the first one's place
        write_checkpoint(run, ARRAYS, progress)
        arrays, found = read_checkpoint(run.checkpoints / NAME)
        assert found == progress
        assert shapes(arrays) == shapes(ARRAYS)
        for name, array in ARRAYS.items():
            assert arrays[name].array().tobytes() == array.tobytes(), name
        require_arrays(run.checkpoints / NAME, arrays, shapes(ARRAYS))
    assert [path.name for path in run.checkpoints.iterdir()] == [NAME]


def test_damaged_files_are_named(run: RunDirectory):
    write_checkpoint(run, ARRAYS, PROGRESS)
    path = run.checkpoints / NAME
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], b"\xff" * len(whole), b"[" * len(whole)):
        path.write_bytes(damaged)
        refused(path, "resume: expected a checkpoint that can be read")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"schema": str(SCHEMA + 1)}, "a later version wrote it"),
        ({"schema": "0"}, "expected schema 1 to 2"),
        ({"schema": "two"}, "two"),
        ({"progress": "{"}, "expected a checkpoint that can be read"),
        ({"progress": "[" * 100_000}, "recursion"),
        ({"progress": '{"epochs": 3}'}, "epochs"),
        ({"progress": None}, "progress"),
        ({"schema": None}, "expected schema 1 to 2"),
    ],
)
def test_metadata_that_say_otherwise_are_refused(run: RunDirectory, metadata: dict[str, str | None], message: str):
    good = {"schema": str(SCHEMA), "progress": json.dumps(asdict(PROGRESS))}
    found = {name: value for name, value in (good | metadata).items() if value is not None}
    save_file(ARRAYS | {"model/table": np.zeros(2)}, run.checkpoints / NAME, metadata=found)
    refused(run.checkpoints / NAME, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model/table": ((3, 3), "float32")}, r"model/table as \(\(3, 3\), 'float32'\), got \(\(3, 2\), 'float32'\)"),
        ({"model/table": ((3, 2), "float64")}, r"model/table as .*float64.*, got .*float32"),
        ({"average/table": ((3, 2), "float32")}, r"average/table as .*, got none"),
        ({"frequencies": None}, r"frequencies as no array, got"),
    ],
)
def test_other_arrays_are_named(run: RunDirectory, changes: dict, message: str):
    write_checkpoint(run, ARRAYS, PROGRESS)
    path = run.checkpoints / NAME
    arrays, _ = read_checkpoint(path)
    expected = {name: shape for name, shape in (shapes(ARRAYS) | changes).items() if shape is not None}
    with pytest.raises(ConfigError, match=f"resume: expected {message}"):
        require_arrays(path, arrays, expected)
