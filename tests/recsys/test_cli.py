from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cce_minus.recsys import DataError, DivergedError, TrainConfig, prepare_data
from cce_minus.recsys.cli.commands import build_app
from cce_minus.recsys.run.data_options import flag_of
from typer.testing import CliRunner


@pytest.fixture
def trained() -> list[TrainConfig]:
    return []


def unserved(weights: Path, device: str, precision: str) -> Any:
    raise AssertionError("no command of these tests serves a model")


def invoke(trained: list[TrainConfig], *arguments: str):
    return CliRunner().invoke(build_app("torch", trained.append, unserved), ["train", *arguments])


def test_defaults_are_those_of_the_config(trained: list[TrainConfig]):
    result = invoke(trained)
    assert result.exit_code == 0, result.output
    assert trained == [TrainConfig(out="runs/torch")]


RUNS = [
    TrainConfig(
        data="events.csv", user_column="u", item_column="i", time_column="t", titles="items.csv",
        title_column="name", split="global-temporal", max_length=20, dim=48, num_blocks=3, num_heads=4,
        dropout=0.5, negatives="hard", num_negatives=5, pool_size=50, group_size=16, shuffle_rows=False,
        group_by_length=False,
        impl="reference",
        batch_size=9, learning_rate=0.5, weight_decay=0.25, warmup_steps=7, epochs=2, patience=3, eval_every=2, seed=11,
        precision="bf16", device="cpu", out="elsewhere", init_weights="w.safetensors", resume=True,
    ),
    TrainConfig(
        out="runs/torch", drop_missing=True, drop_duplicates=True,
        min_rating=3.5, rating_column="stars", min_item_events=5, min_user_events=3,
        split="global-temporal",
        split_quantile=0.8, valid_fraction=0.1, metrics_at="5,10", filter_seen=True, test_users=9,
    ),
    TrainConfig(out="runs/torch", train_on_valid=True, devices=2),
    TrainConfig(out="runs/torch", split="none", from_run="runs/yesterday", gone_items="keep"),
    TrainConfig(out="runs/torch", items="all.csv", item_optimizer="rowwise-adagrad", item_learning_rate=0.1,
    table_dtype="bf16", table_on="host"),
    TrainConfig(out="runs/torch", split="sessions", split_quantile=0.8, valid_fraction=0.1),
    TrainConfig(out="runs/torch", model="bert4rec", mask_probability=0.5),
    TrainConfig(out="runs/torch", item_features="i.csv", feature_columns="kind", item_vectors="v.parquet",
    item_vectors_dim=8),
    TrainConfig(out="runs/torch", item_features="i.csv", numeric_columns="price,weight", numeric_as="quantiles",
    numeric_bins=5),
    TrainConfig(out="runs/torch", item_vectors="v.parquet", item_vectors_as="initial"),
    TrainConfig(out="runs/torch", negatives="popularity", popularity_power=0.5),
    TrainConfig(out="runs/torch", negatives="mixed", frequency_rate=0.5),
    TrainConfig(out="runs/torch", logq_correction=False),
    TrainConfig(out="runs/torch", loss="gbce", gbce_t=0.5),
    TrainConfig(out="runs/torch", loss="sce", n_buckets=5, bucket_size_x=6, bucket_size_y=7, mix_x=True),
    TrainConfig(
        out="runs/torch", accumulate=2, optimizer="sgd", momentum=0.5, schedule="cosine", clip_norm=1.0, ema_decay=0.9,
        data_on="host", deterministic=True, profile=True, log_to="tensorboard,wandb",
    ),
]  # fmt: skip


def test_every_option_reaches_the_config(trained: list[TrainConfig]):
    defaults = TrainConfig(out="runs/torch")
    tested: set[str] = set()
    for expected in RUNS:
        arguments: list[str] = []
        for field in dataclasses.fields(expected):
            value, flag = getattr(expected, field.name), flag_of(field)
            if value == getattr(defaults, field.name):
                continue
            tested.add(field.name)
            if isinstance(value, bool):
                arguments.append(flag if value else flag.replace("--", "--no-"))
            else:
                arguments += [flag, str(value)]
        result = invoke(trained, *arguments)
        assert result.exit_code == 0, result.output
    assert trained == RUNS
    assert tested == {field.name for field in dataclasses.fields(TrainConfig)}


def test_help_lists_every_option_with_its_meaning(trained: list[TrainConfig]):
    result = CliRunner().invoke(build_app("jax", trained.append, unserved), ["train", "--help"], env={"COLUMNS": "200"})
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.output).split())
    for field in dataclasses.fields(TrainConfig):
        assert re.search(rf"{flag_of(field)}\b(?!-)", text)
        assert field.metadata["help"].split()[0] in text
    assert "runs/jax" in text
    assert trained == []


def test_an_option_with_a_flag_of_its_own_has_no_other(trained: list[TrainConfig]):
    assert flag_of(TrainConfig.__dataclass_fields__["from_run"]) == "--from"
    assert invoke(trained, "--from-run", "runs/yesterday").exit_code == 2
    assert trained == []


def test_a_bad_value_is_one_line_and_status_2(trained: list[TrainConfig]):
    result = invoke(trained, "--num-heads", "5")
    assert result.exit_code == 2
    assert result.stderr == "error: num_heads: expected a divisor of dim = 64, got 5\n"
    assert trained == []


def test_bad_data_is_one_line_and_status_2(tmp_path: Path):
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id\n1,2\n")
    result = CliRunner().invoke(build_app("torch", prepare_data, unserved), ["train", "--data", str(path)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "no column 'timestamp'" in result.stderr
    assert str(path) in result.stderr


def test_an_error_of_several_lines_is_joined():
    def train(config: TrainConfig) -> None:
        raise DataError("first\n  second")

    result = CliRunner().invoke(build_app("torch", train, unserved), ["train"])
    assert result.stderr == "error: first second\n"


def test_a_training_that_diverges_is_one_line_and_status_1():
    def train(config: TrainConfig) -> None:
        raise DivergedError("loss: nan")

    result = CliRunner().invoke(build_app("torch", train, unserved), ["train"])
    assert (result.exit_code, result.stderr) == (1, "error: loss: nan\n")


def test_other_errors_are_not_hidden():
    def train(config: TrainConfig) -> None:
        raise ZeroDivisionError

    result = CliRunner().invoke(build_app("torch", train, unserved), ["train"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_the_package_imports_no_framework_and_no_command_line():
    names = ("torch", "jax", "triton", "typer")
    code = f"import sys, cce_minus.recsys; print([name for name in {names} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
