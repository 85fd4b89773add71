"""The options of a run that come from a file: of a run that is repeated, and of one that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.cli.commands import build_app
from cce_minus.recsys.run.saved_options import left_of
from typer.testing import CliRunner

SAVED = TrainConfig(data="/logs.csv", dim=48, num_heads=4, filter_seen=True, resume=True, device="cpu", out="/runs/a")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, which was made in another place."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(SAVED.to_json())
    return tmp_path / "run"


def train(*arguments: Any) -> tuple[list[TrainConfig], Any]:
    def unserved(*_: Any) -> Any:
        raise AssertionError

    trained: list[TrainConfig] = []
    result = CliRunner().invoke(build_app("torch", trained.append, unserved), ["train", *map(str, arguments)])
    return trained, result


def test_a_run_is_repeated_by_its_file_alone(run: Path):
    trained, result = train("--config", run / "config.json")
    assert result.exit_code == 0, result.output
    assert trained == [replace(SAVED, out="runs/torch", resume=False)]


def test_given_options_count_instead_of_the_files(run: Path):
    options = ("--dim", 64, "--num-heads", 1, "--no-filter-seen", "--seed", 7, "--out", "b")  # some are the defaults
    (config,), _ = train("--config", run / "config.json", *options)
    assert config == replace(SAVED, dim=64, num_heads=1, filter_seen=False, seed=7, out="b", resume=False)


def test_the_number_of_other_negatives_is_not_the_files(run: Path):
    """As where auto has become a number."""
    (run / "config.json").write_text(replace(SAVED, num_negatives=4096).to_json())
    for given in (["--config", run / "config.json"], ["--resume", "--out", run]):
        for negatives in ("auto", "all"):
            (config,), _ = train(*given, "--negatives", negatives)
            assert (config.negatives, config.num_negatives) == (negatives, 0)
        (config,), _ = train(*given, "--negatives", "uniform")
        assert config.num_negatives == 4096


def test_a_run_goes_on_by_its_folder_alone(run: Path):
    trained, result = train("--resume", "--out", run)
    assert result.exit_code == 0, result.output
    assert trained == [replace(SAVED, out=str(run))]
    (config,), _ = train("--resume", "--out", run, "--epochs", 99, "--dim", 64)
    assert config == replace(SAVED, out=str(run), epochs=99, dim=64)


def test_a_new_run_takes_nothing_from_the_folder(run: Path, tmp_path: Path):
    assert train("--out", run)[0] == [TrainConfig(out=str(run))]
    assert train("--resume", "--out", tmp_path / "none")[0] == [TrainConfig(out=str(tmp_path / "none"), resume=True)]


def test_a_run_that_goes_on_may_have_its_options_from_another_file(run: Path, tmp_path: Path):
    other = tmp_path / "other.json"
    other.write_text(TrainConfig(dim=16).to_json())
    assert train("--resume", "--out", run, "--config", other)[0] == [TrainConfig(dim=16, out=str(run), resume=True)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "other.json: expected the options of a run, got: "),
        ("[1]", "other.json: expected the options of a run, got: config: expected a JSON object, got list"),
        ('{"dims": 3}', "unknown options dims"),
        ('{"dim": 3, "num_heads": 2}', "num_heads: expected a divisor of dim = 3, got 2"),
    ],
)
def test_a_file_that_holds_no_options_is_named(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "other.json").write_text(text)
    trained, result = train("--config", tmp_path / "other.json")
    assert (result.exit_code, trained) == (2, [])
    (line,) = result.stderr.splitlines()
    assert message in line


LEFT = ("batch_size", "negatives", "patience")


def resolved_run(run: Path) -> TrainConfig:
    """The run as its log has resolved it."""
    config = replace(SAVED, batch_size=16, negatives="all", patience=33)
    (run / "config.json").write_text(config.to_json(LEFT))
    return config


def test_what_a_run_left_to_its_log_is_left_to_the_next_one(run: Path):
    resolved_run(run)
    (config,), _ = train("--config", run / "config.json")
    assert config == replace(SAVED, out="runs/torch", resume=False)
    for option, expected in (
        (("--split", "none"), {"split": "none", "filter_seen": False}),
        (("--train-on-valid",), {"train_on_valid": True}),
        (("--loss", "bce"), {"loss": "bce"}),
        (("--num-negatives", 512), {"num_negatives": 512}),
        (("--group-size", 64), {"group_size": 64}),
    ):
        (config,), result = train("--config", run / "config.json", "--no-filter-seen", *option)
        assert result.exit_code == 0, result.output
        assert config == replace(SAVED, **{"out": "runs/torch", "resume": False, "filter_seen": False, **expected})


def test_a_run_goes_on_as_its_log_was_resolved(run: Path):
    config = resolved_run(run)
    assert train("--resume", "--out", run)[0] == [replace(config, out=str(run))]
    assert left_of(run / "config.json") == LEFT


def test_patience_of_a_file_is_not_for_runs_that_validate_nothing(run: Path):
    """As in files of before the default followed from the log."""
    (run / "config.json").write_text(replace(SAVED, patience=5).to_json())
    for option in (("--split", "none", "--no-filter-seen"), ("--train-on-valid",)):
        (config,), _ = train("--config", run / "config.json", *option)
        assert config.patience == 0
    (config,), _ = train("--config", run / "config.json", "--patience", 7)
    assert config.patience == 7
    _, refused = train("--config", run / "config.json", "--train-on-valid", "--patience", 7)
    assert refused.exit_code == 2
    assert "patience: expected its default 0 with train_on_valid" in refused.output


@pytest.mark.parametrize("left", ["dim", ["nothing"], 7])
def test_what_is_left_to_the_log_are_options(run: Path, left: Any):
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | {"left_to_the_log": left}))
    _, refused = train("--config", run / "config.json")
    assert refused.exit_code == 2
    assert "left_to_the_log: expected a list of options" in refused.output
