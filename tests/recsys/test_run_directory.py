"""The folder of a run: claimed late, let go of where nothing was trained, found again wherever it and its data are."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
from pathlib import Path

import pytest
from cce_minus.recsys import ConfigError, DataError, TrainConfig, prepare_data
from cce_minus.recsys.run.fingerprint import Fingerprint
from cce_minus.recsys.run.run_directory import RunDirectory, claim_run, find_run

Row = tuple[str, str, int]
ROWS: list[Row] = [(f"u{user}", f"i{(user + step) % 6}", step) for user in range(4) for step in range(5)]


def write_events(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "timestamp"), *rows])
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run whose data and folder are named from the folder that they are in."""
    monkeypatch.chdir(tmp_path)
    write_events(tmp_path / "events.csv", ROWS)
    return TrainConfig(data="events.csv", out="deep/run")


def claim(config: TrainConfig, error: BaseException | None = None, *, epochs: int = 0) -> RunDirectory:
    """Claims the folder for a training that ends with ``error`` after ``epochs``."""
    run = find_run(config, "torch")
    with claim_run(run, config, *prepare_data(config)):
        if not config.resume:
            run.metrics_log.write_text("header\n" + "row\n" * epochs)
        if error is not None:
            raise error
    return run


@pytest.mark.parametrize("error", [ConfigError("loss"), RuntimeError("a fault"), KeyboardInterrupt()])
def test_a_training_that_fails_at_once_leaves_no_folder(config: TrainConfig, tmp_path: Path, error: BaseException):
    with pytest.raises(type(error)):
        claim(config, error)
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]
    claim(config)  # the folder is free


def test_what_was_there_before_or_was_trained_stays(config: TrainConfig, tmp_path: Path):
    (tmp_path / "deep" / "run").mkdir(parents=True)
    note = tmp_path / "deep" / "run" / "note.txt"
    note.write_text("mine")
    with pytest.raises(RuntimeError):
        claim(config, RuntimeError())
    assert list(note.parent.iterdir()) == [note]
    with pytest.raises(RuntimeError):
        claim(config, RuntimeError(), epochs=1)
    resumed = dataclasses.replace(config, resume=True)
    with pytest.raises(RuntimeError):
        claim(resumed, RuntimeError())
    assert claim(resumed).config.exists()


def test_a_folder_that_cannot_be_one_is_refused_before_data_are_read(config: TrainConfig, tmp_path: Path):
    (tmp_path / "file").touch()
    for out in ("file", "file/run", "/proc/run", "x" * 300):
        unusable = dataclasses.replace(config, out=out, data="nowhere.csv")
        with pytest.raises(ConfigError, match="out: expected a folder that can be written"):
            claim_run(find_run(unusable, "torch"), unusable, *prepare_data(config)).__enter__()


def test_a_run_remembers_absolute_paths(config: TrainConfig, tmp_path: Path):
    saved = TrainConfig.read(claim(config).config)
    assert saved == dataclasses.replace(config, data=str(tmp_path / "events.csv"), out=str(tmp_path / "deep" / "run"))
    assert TrainConfig(data="ml-100k").located().data == "ml-100k"


def test_another_spelling_or_place_of_the_same_events_resumes(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    claim(config, epochs=1)
    moved = random.Random(0).sample(ROWS, len(ROWS))  # the order of rows says nothing where times do
    write_events(tmp_path / "moved.csv", moved)
    (tmp_path / "deep" / "run").rename(tmp_path / "elsewhere")
    monkeypatch.chdir("/")
    for data in ("events.csv", "../" + tmp_path.name + "/events.csv", "moved.csv"):
        resumed = dataclasses.replace(
            config, data=str(tmp_path / data), out=str(tmp_path / "elsewhere"), resume=True, epochs=20
        )
        assert TrainConfig.read(claim(resumed).config).data == str((tmp_path / data).resolve())


CHANGES = {
    "one more event": [*ROWS, ("u0", "i1", 9)],
    "an event less": [row for row in ROWS if row != ("u3", "i4", 1)],
    "two events in another order": [*ROWS[:-2], ("u3", "i1", 3), ("u3", "i0", 4)],
    "another user's": [(f"u{3 - int(user[1])}", *rest) for user, *rest in ROWS],
}


@pytest.mark.parametrize("rows", CHANGES.values(), ids=CHANGES)
def test_other_events_of_the_same_items_do_not_resume(config: TrainConfig, rows: list[Row]):
    run = claim(config, epochs=1)
    write_events(Path(config.data), rows)
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(DataError, match="data: expected the events that the run to resume began with"):
        claim(dataclasses.replace(config, resume=True))
    assert {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_a_run_of_before_there_were_fingerprints_resumes(config: TrainConfig, tmp_path: Path):
    run = claim(config, epochs=1)
    run.fingerprint.unlink()
    run.config.write_text(config.to_json())  # with paths as they were typed
    write_events(tmp_path / "other.csv", ROWS)
    with pytest.raises(ConfigError, match=r"^data: expected 'events\.csv' as in the run to resume, got 'other\.csv'$"):
        claim(dataclasses.replace(config, data="other.csv", resume=True))
    claim(dataclasses.replace(config, resume=True))
    assert Fingerprint.read(run.fingerprint).train_events == 12


def test_files_of_a_run_that_cannot_be_read_are_named(config: TrainConfig):
    run = claim(config, epochs=1)
    for file in (run.config, run.fingerprint, run.catalog):
        kept = file.read_bytes()
        for damaged in (kept[: len(kept) // 2], b"", b"\xff" + kept, json.dumps([1]).encode(), b"[" * 100_000):
            file.write_bytes(damaged)
            with pytest.raises((ConfigError, DataError), match=file.name):
                claim(dataclasses.replace(config, resume=True))
        file.write_bytes(kept)
    claim(dataclasses.replace(config, resume=True))
