"""Runs that move the rows of the item table which a step touches, and of the rest all."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.recsys import ConfigError, Split, TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.run import item_optimizer, recorder, tensor_file
from cce_minus.recsys.run.checkpoint_file import NAME, read_checkpoint
from cce_minus.recsys.run.item_optimizer import ROW_RULES, item_rule, log_item_rule
from cce_minus.recsys.run.tensor_file import open_tensor_file
from cce_minus.torch_impl import ItemTable
from safetensors.torch import load_file

from tests.training.commands import call
from tests.training.runs import JaxRun, TorchRun
from tests.training.test_run import assert_same_run
from tests.training.test_training_options import losses_of

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]

FEW: dict[str, Any] = {"num_negatives": 8, "group_size": 128}  # 2 groups of a batch: 16 draws of 40 items

OPTIONS: dict[str, dict[str, Any]] = {
    "rowwise-adagrad": {"item_learning_rate": 0.05, "weight_decay": 0.1, "loss": "bce"},
    "partial-rowwise-adam": {"schedule": "cosine", "clip_norm": 0.05, "table_dtype": "bf16"},
    "lazy-adam": {"model": "bert4rec", "mask_probability": 0.4, "data_on": "host", "logq_correction": False},
}


@pytest.fixture
def split(make_config: Make) -> Split:
    return prepare_data(make_config())[1]


def run_of(framework: str, config: TrainConfig, split: Split) -> TorchRun | JaxRun:
    sequences = None if config.data_on == "host" else split.train
    rule = item_rule(config, split.num_items)
    return {"torch": TorchRun, "jax": JaxRun}[framework](config, split, sequences=sequences, item_rule=rule)


@pytest.mark.parametrize("optimizer", ROW_RULES)
def test_frameworks_train_alike(make_config: Make, split: Split, tmp_path: Path, optimizer: str):
    options = {"dropout": 0.0, "learning_rate": 1e-3, "warmup_steps": 2, **FEW, **OPTIONS[optimizer]}
    config = make_config(item_optimizer=optimizer, **options)
    runs = run_of("torch", config, split), run_of("jax", config, split)
    runs[0].save(tmp_path / "start.safetensors")
    assert isinstance(runs[1], JaxRun)
    runs[1].load(tmp_path / "start.safetensors")
    start = runs[0].weights
    torch_losses, jax_losses = (losses_of(run, split) for run in runs)
    assert len(torch_losses) == 8
    rounds = config.table_dtype == "bf16"  # up or down, by the last bits of what is rounded
    np.testing.assert_allclose(jax_losses, torch_losses, rtol=1e-3 if rounds else 1e-4)
    for name, got in runs[0].weights.items():
        if name.endswith("qkv.bias"):  # as in test_steps
            continue
        if name == "item_table" and rounds:
            assert (got.view(np.uint32) << 16 == 0).all()
        moved = np.abs(got - start[name]).max()
        assert moved > 0, name
        assert np.abs(got - runs[1].weights[name]).mean() < 0.01 * moved, name


def test_a_step_moves_what_it_touches_by_the_whole_tables_gradient(framework: str, make_config: Make, split: Split):
    """The loss is that of the whole table; rows that are neither drawn, nor targets, nor inputs stay as they are."""
    options = {"num_negatives": 1, "group_size": 128, "batch_size": 2, "data_on": "host"}
    config = make_config(item_optimizer="lazy-adam", dropout=0.0, **options)
    run = run_of(framework, config, split)
    batch = next(epoch_batches(config, split, 0))
    expected, before = float(run.loss(batch, 0)), run.weights["item_table"]
    assert run.step(batch, 0) == pytest.approx(expected, rel=1e-6)
    moved = np.flatnonzero((run.weights["item_table"] != before).any(axis=1))
    named = np.union1d(batch.inputs, batch.targets)
    named = named[named >= 0]
    assert set(named) <= set(moved)
    assert len(set(moved) - set(named)) <= 1


@pytest.mark.parametrize("optimizer", ["rowwise-adagrad", "partial-rowwise-adam"])
def test_runs_learn_and_resume(train: Train, framework: str, make_config: Make, optimizer: str):
    options: dict[str, Any] = {"item_optimizer": optimizer}
    if optimizer == "rowwise-adagrad":
        options |= {"item_learning_rate": 0.05, "table_dtype": "bf16"}
    whole = make_config("whole", epochs=6, patience=6, **FEW, **options)
    result = train(whole)
    assert result.losses[-1] < result.losses[0] - 0.1
    parts = make_config("parts", epochs=2, patience=6, **FEW, **options)
    train(parts)
    train(replace(parts, epochs=6, resume=True))
    assert_same_run(Path(parts.out), Path(whole.out))
    arrays, _ = read_checkpoint(Path(whole.out) / f"{framework}-checkpoints" / NAME)
    second = [array for name, array in arrays.items() if name.endswith(("second/item_table", "items/second"))]
    assert [array.shape for array in second] == [(40,)]
    steps = [array for name, array in arrays.items() if name.endswith(("step/item_table", "items/step"))]
    assert [int(array.array()[0]) for array in steps] == [24]
    tables = [array.dtype for name, array in arrays.items() if name in ("model/item_table", "parameters/item_table")]
    assert tables == ["bfloat16" if "table_dtype" in options else "float32"]


@pytest.mark.parametrize("optimizer", ROW_RULES)
def test_a_table_in_the_hosts_memory_is_trained_alike(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, optimizer: str
):
    """Bit for bit, also where an epoch takes several portions, with rows that successive steps share."""
    train = importlib.import_module("cce_minus.torch_impl.train").train
    options = {"epochs": 3, "patience": 3, "dropout": 0.2, **FEW, **OPTIONS[optimizer], "schedule": "constant"}
    options["item_optimizer"] = optimizer
    monkeypatch.setattr(importlib.import_module("cce_minus.torch_impl.training.trainer"), "MOST_BATCHES", 3)
    expected = train(make_config("device", **options))
    fetched = []
    fetch = ItemTable.fetch
    monkeypatch.setattr(ItemTable, "fetch", lambda table, rows: (fetched.append(rows), fetch(table, rows))[1])
    first = make_config("host", **(options | {"table_on": "host", "epochs": 1}))
    train(first)
    result = train(replace(first, epochs=3, resume=True))
    assert len(fetched) == 3 * 4
    assert (result.losses, result.test) == (expected.losses, expected.test)
    assert_same_run(Path(first.out), Path(make_config("device").out))


def test_more_batches_of_the_same_steps_reach_the_table(make_config: Make, split: Split):
    """`replay`, of a table in the host's memory as of another."""
    moved = []
    for place in ("device", "host"):
        config = make_config(item_optimizer="rowwise-adagrad", dropout=0.0, data_on="host", table_on=place, **FEW)
        run = run_of("torch", config, split)
        assert isinstance(run, TorchRun)
        run.step(next(epoch_batches(config, split, 0)), 0)
        run.steps.replay()
        run.step(next(epoch_batches(config, split, 0)), 0)
        moved.append(run.weights["item_table"])
    np.testing.assert_array_equal(*moved)


def test_jax_takes_no_table_in_the_hosts_memory(make_config: Make):
    train = importlib.import_module("cce_minus.jax_impl.train").train
    with pytest.raises(ConfigError, match=r"table_on: expected device .*, got host"):
        train(make_config(item_optimizer="lazy-adam", table_on="host", **FEW))


def test_a_large_state_is_written_in_pieces_before_the_next_step(
    train: Train, framework: str, make_config: Make, monkeypatch: pytest.MonkeyPatch
):
    """Nothing of it is copied, and the files are those of a small one."""
    options: dict[str, Any] = {"item_optimizer": "partial-rowwise-adam", "table_dtype": "bf16", "epochs": 3, **FEW}
    small, large = make_config("small", **options), make_config("large", **options)
    expected = train(small)
    state = importlib.import_module(f"cce_minus.{framework}_impl.training.state")
    made = []
    live = type(
        "Live",
        (state.Copy,),
        {"__init__": lambda copy, *a, **k: (state.Copy.__init__(copy, *a, **k), made.append(copy))[0]},
    )
    monkeypatch.setattr(importlib.import_module(f"cce_minus.{framework}_impl.training.trainer"), "Copy", live)
    monkeypatch.setattr(recorder, "MOST_COPIED", 1000)
    monkeypatch.setattr(tensor_file, "PIECE", 1000)
    assert train(large).losses == expected.losses
    assert [copy.is_live for copy in made] == [True] * 3
    assert_same_run(Path(large.out), Path(small.out))
    for file in ("best.safetensors", f"{framework}-checkpoints/{NAME}"):
        (_, one), (_, other) = (open_tensor_file(Path(run.out) / file) for run in (small, large))
        for name, tensor in one.items():
            np.testing.assert_array_equal(tensor.array(), other[name].array(), err_msg=name)
    train(replace(large, epochs=4, resume=True))


def test_tables_in_bfloat16_are_exported(train: Train, framework: str, make_config: Make, tmp_path: Path):
    faiss = pytest.importorskip("faiss")
    config = make_config(item_optimizer="rowwise-adagrad", table_dtype="bf16", epochs=1, **FEW)
    train(config)
    result = call(framework, "export", "--run", config.out, "--to", tmp_path / "export")
    assert result.exit_code == 0, result.output
    vectors = load_file(tmp_path / "export" / "items.safetensors")["vectors"]
    assert vectors.dtype == torch.bfloat16
    assert torch.equal(vectors, load_file(Path(config.out) / "best.safetensors")["item_table"])
    index = faiss.read_index(str(tmp_path / "export" / "index.faiss"))
    np.testing.assert_array_equal(index.reconstruct_n(0, len(vectors)), vectors.float().numpy())


@pytest.mark.parametrize("side", ["initial", "features"])
def test_tables_in_bfloat16_start_from_vectors(
    train: Train, make_config: Make, tmp_path: Path, side: str, recwarn: pytest.WarningsRecorder
):
    vectors = [[float(item % 7), float(item % 3), 1.0] for item in range(40)]
    pq.write_table(pa.table({"item_id": list(range(40)), "vector": vectors}), tmp_path / "v.parquet")
    options = {"item_vectors": str(tmp_path / "v.parquet"), "item_vectors_as": side, "table_dtype": "bf16"}
    result = train(make_config(item_optimizer="partial-rowwise-adam", epochs=2, dim=16, **options, **FEW))
    assert result.losses[-1] < result.losses[0]
    assert not [warning for warning in recwarn if "incompatible types" in str(warning.message)]


def test_features_are_of_the_rows_that_a_step_touches(train: Train, make_config: Make, tmp_path: Path):
    (tmp_path / "items.csv").write_text("item_id,kind\n" + "".join(f"{item},{item % 5}\n" for item in range(40)))
    files = {"item_features": str(tmp_path / "items.csv"), "feature_columns": "kind"}
    result = train(make_config(item_optimizer="partial-rowwise-adam", epochs=3, **FEW, **files))
    assert result.losses[-1] < result.losses[0]


def test_what_cannot_move_rows_alone_is_refused(make_config: Make):
    for options, reason in (
        ({"negatives": "all"}, "loss = softmax, negatives = all"),
        ({"loss": "sce"}, "loss = sce, negatives = uniform"),
        ({"num_negatives": 1, "group_size": 1}, "group_size = 1"),
        ({"accumulate": 2, **FEW}, "accumulate = 2"),
        ({"ema_decay": 0.9, **FEW}, r"ema_decay = 0\.9"),
    ):
        with pytest.raises(ConfigError, match=f"item_optimizer: expected adamw or auto with {reason}, got lazy-adam"):
            make_config(item_optimizer="lazy-adam", **options)
    with pytest.raises(ConfigError, match="item_optimizer: expected auto beside optimizer = sgd, got adamw"):
        make_config(item_optimizer="adamw", optimizer="sgd")
    with pytest.raises(ConfigError, match="item_learning_rate"):
        make_config(item_optimizer="adamw", item_learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"item_learning_rate: expected 0 .* \(item_optimizer = auto, 40 items\)"):
        item_rule(make_config(item_learning_rate=0.1), 40)
    with pytest.raises(ConfigError, match=r"table_dtype: expected fp32 .* \(item_optimizer = auto, 40 items\)"):
        item_rule(make_config(table_dtype="bf16"), 40)
    with pytest.raises(ConfigError, match="table_dtype: expected its default fp32 with item_optimizer = adamw"):
        make_config(item_optimizer="adamw", table_dtype="bf16")
    with pytest.raises(ConfigError, match=r"table_on: expected device .* \(item_optimizer = auto, 40 items\)"):
        item_rule(make_config(table_on="host"), 40)
    with pytest.raises(ConfigError, match="table_on: expected device with item_features"):
        make_config(item_optimizer="lazy-adam", table_on="host", item_features="i.csv", feature_columns="kind")
    many = make_config(item_optimizer="lazy-adam", num_negatives=11, group_size=128)
    with pytest.raises(ConfigError, match="a step draws more than half of 40 items"):
        item_rule(many, 40)


def test_large_catalogs_move_rows_alone_and_say_so(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)

    def told(items: int = 40, **options: Any) -> str | None:
        config = make_config(**FEW, **options)
        log_item_rule(config, items)
        return item_rule(config, items)

    assert told() is None
    assert not caplog.messages
    monkeypatch.setattr(item_optimizer, "LARGE", 40)
    assert told() == "partial_rowwise_adam"
    assert told(item_optimizer="adamw") is None
    assert told(accumulate=2) is None
    assert told(batch_size=64) is None
    assert caplog.messages == [
        "item_optimizer: partial-rowwise-adam, as there are 40 items or more",
        "every step moves all 40 items, because of accumulate = 2",
        "every step moves all 40 items, because of so many draws",
    ]
