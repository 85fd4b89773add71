"""The options of a run that come from a file: of a run that is repeated, and of one that goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.cli.commands import build_app
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
