"""The commands: help worth reading, files on success, one line and status 2 on bad input."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cce_minus.jax_impl import cli as jax_cli
from cce_minus.recsys import TrainConfig
from cce_minus.recsys.run.saved_options import given_options
from typer.testing import CliRunner

from tests.training.commands import error_of, train_arguments


@pytest.fixture
def app(framework: str):
    return importlib.import_module(f"cce_minus.{framework}_impl.cli").app


def test_help_lists_the_options(app):
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in (
        "--data",
        "--loss",
        "--negatives",
        "--num-negatives",
        "--n-buckets",
        "--resume",
        "--init-weights",
        "--out",
    ):
        assert option in result.output


def test_train_command_writes_a_run(app, make_config: Callable[..., TrainConfig]):
    config = make_config(epochs=1)
    arguments = train_arguments(config)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    out = Path(config.out)
    resolved = TrainConfig.from_json((out / "config.json").read_text())
    assert resolved == replace(config, patience=50)  # of few users
    assert given_options(out / "config.json") == vars(config)
    assert {path.name for path in out.iterdir()} >= {"best.safetensors", "metrics.csv", "result.json"}
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "out: expected a folder without a run" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.parquet"], "nowhere.parquet"),
        (["--dim", "10", "--num-heads", "3"], "num_heads"),
        (["--init-weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (
            ["--loss", "bce", "--negatives", "hard"],
            "negatives: expected uniform or popularity or log-uniform with loss = bce",
        ),
        (["--out", __file__], "out: expected a folder that can be written"),
        (["--out", f"{__file__}/run"], "out: expected a folder that can be written"),
        # What only the samplers or the loss know to refuse.
        (["--num-negatives", str(2**31)], "num_negatives: expected an int in"),
        (["--loss", "sce", "--n-buckets", str(2**31)], "n_buckets: expected at most"),
        (["--impl", "triton"], "impl: expected 'auto' or 'reference' for"),
        (["--dim", str(10**13)], "memory: expected at most the device's"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(
    app,
    framework: str,
    interactions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    """And none of them leaves a folder behind."""
    module = {"torch": "torch_impl.loss.row_losses", "jax": "jax_impl.loss.arguments"}[framework]
    monkeypatch.setattr(f"cce_minus.{module}.interprets", lambda: False)
    base = ["train", "--data", str(interactions), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert message in error_of(CliRunner().invoke(app, [*base, *arguments]))
    assert not (tmp_path / "run").exists()


def test_what_takes_seconds_is_not_imported_before_a_command_has_work(framework: str):
    late = {"torch": "lightning_fabric", "jax": "matplotlib"}[framework]
    code = f"import sys, cce_minus.{framework}_impl.train; sys.exit('{late}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=180).returncode == 0


@pytest.mark.parametrize(
    ("gpu", "chosen", "folder"),
    [(True, None, "default/jax"), (True, "here", "here"), (True, "", ""), (False, None, "")],
)
def test_the_jax_command_keeps_programs_of_a_gpu(gpu: bool, chosen: str | None, folder: str, tmp_path: Path):
    """Those that it compiles as well as JAX's option, which a variable that comes too late does not move."""
    code = f"""
import jax, jax.numpy as jnp
from cce_minus.jax_impl import cli
cli._has_gpu_support = lambda: {gpu}
cli.app = lambda: jax.jit(lambda x: 2 * x)(jnp.ones(3)).block_until_ready()
cli.main()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment["CCE_MINUS_CACHE"] = str(tmp_path / "default")
    if chosen is not None:
        environment[jax_cli.FOLDER] = chosen and str(tmp_path / chosen)
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=180)
    kept = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == ({folder} if folder else set())


def test_module_can_be_run(framework: str):
    command = [sys.executable, "-m", f"cce_minus.{framework}_impl.train", "train", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert result.returncode == 0, result.stderr
    assert "--negatives" in result.stdout


def test_a_run_goes_on_and_is_repeated_without_other_options(app, make_config: Callable[..., TrainConfig]):
    config = make_config(epochs=1)
    assert CliRunner().invoke(app, train_arguments(config)).exit_code == 0
    out = Path(config.out)
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(out), "--epochs", "2"])
    assert result.exit_code == 0, result.output
    assert "dim: expected 16 as in the run to resume, got 8" in error_of(
        CliRunner().invoke(app, ["train", "--resume", "--out", str(out), "--dim", "8"])
    )
    again = out.parent / "again"
    result = CliRunner().invoke(app, ["train", "--config", str(out / "config.json"), "--out", str(again)])
    assert result.exit_code == 0, result.output
    assert (again / "best.safetensors").read_bytes() == (out / "best.safetensors").read_bytes()
    result = CliRunner().invoke(app, ["compare", str(out), str(again), "--output", str(out.parent / "compare.png")])
    assert result.exit_code == 0, result.output
    assert (out.parent / "compare.png").exists()
    ndcg = next(line for line in result.output.splitlines() if line.startswith("ndcg@10")).split()
    assert ndcg[1] == ndcg[2]
