"""A training on several devices whose item table moves by rows: each device has its part of it, and no other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.recsys import ConfigError, TrainConfig
from safetensors.numpy import load_file

from tests.training.commands import call
from tests.training.devices import results_of

Make = Callable[..., TrainConfig]

FEW: dict[str, Any] = {"num_negatives": 8, "group_size": 128, "item_optimizer": "rowwise-adagrad"}
"""2 groups of a batch: 16 draws of 40 items."""

OPTIONS: dict[str, dict[str, Any]] = {
    "adagrad": {"weight_decay": 0.1, "logq_correction": False},
    "bf16, clipped": {"item_optimizer": "partial-rowwise-adam", "table_dtype": "bf16", "clip_norm": 0.05},
    "masked": {"item_optimizer": "lazy-adam", "model": "bert4rec", "data_on": "host", "batch_size": 13},
}


@pytest.fixture
def make(make_config: Make) -> Make:
    return lambda out="run", **changes: make_config(out, **(FEW | changes))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_two_train_as_well_as_one(framework: str, make: Make, options: dict[str, Any]):
    """Draws are others: each part of the table has its own."""
    configs = [make(f"of-{devices}", devices=devices, dropout=0.0, epochs=4, **options) for devices in (1, 2)]
    one, two = results_of(framework, *configs)
    assert one["losses"][-1] < 0.9 * one["losses"][0] or "model" in options
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0.06)
    assert two["test"]["ndcg@10"] == pytest.approx(one["test"]["ndcg@10"], abs=0.12)
    assert_tested_alike(framework, configs[1], two)
    first, second = (load_file_of(config) for config in configs)
    assert {name: weight.shape for name, weight in first.items()} == {
        name: weight.shape for name, weight in second.items()
    }


def assert_tested_alike(framework: str, config: TrainConfig, result: dict[str, Any]) -> None:
    """One process finds for the weights what several did."""
    measured = json.loads(call(framework, "evaluate", "--run", Path(config.out), "--json", "--device", "cpu").output)
    assert measured == pytest.approx(result["test"], abs=1e-9 if config.device == "cpu" else 0.02)


def load_file_of(config: TrainConfig, name: str = "best.safetensors") -> dict[str, Any]:
    from cce_minus.recsys.run.tensor_file import as_numbers, open_tensor_file

    found = open_tensor_file(Path(config.out) / name)[1]
    return {name: as_numbers(tensor.array(), tensor.dtype) for name, tensor in found.items()}


def test_gradients_are_those_of_the_sum_of_losses(make: Make):
    """By differences of the losses, in every direction of some; of JAX by the same steps, below."""
    config = make(devices=2, dropout=0.0, batch_size=13)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.training.sharded_gradients", config.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("number", "clip_norm"), [(2, 0.0), (3, 0.05)])
def test_frameworks_take_the_same_steps(make: Make, number: int, clip_norm: float):
    """By an optimizer whose steps are as long as the gradients."""
    start = make("start", epochs=1)
    results_of("torch", start)
    options = {"init_weights": str(Path(start.out) / "best.safetensors"), "dropout": 0.0, "optimizer": "sgd"}
    options |= {"learning_rate": 0.5, "item_learning_rate": 1e-3, "epochs": 1, "devices": number}
    configs = [make(name, clip_norm=clip_norm, **options) for name in ("torch", "jax")]
    results = [results_of(config.out.rsplit("/", 1)[-1], config)[0] for config in configs]
    np.testing.assert_allclose(results[1]["losses"], results[0]["losses"], rtol=1e-4)
    weights = [load_file_of(config) for config in configs]
    for name, got in weights[0].items():
        if not name.endswith("qkv.bias"):  # as in test_steps
            np.testing.assert_allclose(weights[1][name], got, atol=3e-5, err_msg=name)


def test_features_are_of_the_items(framework: str, make: Make, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = range(40)
    pq.write_table(pa.table({"item_id": items, "kind": [str(item % 4) for item in items]}), tmp_path / "items.parquet")
    features = {"item_features": str(tmp_path / "items.parquet"), "feature_columns": "kind"}
    configs = [make(f"of-{devices}", devices=devices, dropout=0.0, **features) for devices in (1, 2)]
    one, two = results_of(framework, *configs)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0.06)
    assert_tested_alike(framework, configs[1], two)
    of_items = [load_file_of(config)["item_features"] for config in configs]
    np.testing.assert_array_equal(*of_items)


def test_a_run_goes_on_as_if_uninterrupted_and_with_another_number(framework: str, make: Make):
    whole, parts = make("whole", devices=2, epochs=2), make("parts", devices=2, epochs=1)
    goes_on = replace(parts, epochs=2, resume=True)
    uninterrupted, _, resumed = results_of(framework, whole, parts, goes_on)
    assert resumed["losses"] == uninterrupted["losses"]
    assert resumed["test"] == uninterrupted["test"]
    checkpoint = f"{framework}-checkpoints/last.safetensors"
    first, second = (load_file(Path(config.out) / checkpoint) for config in (whole, parts))
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)
    for devices, epochs in ((3, 3), (1, 4)):
        (result,) = results_of(framework, replace(goes_on, devices=devices, epochs=epochs))
        assert len(result["losses"]) == epochs
        assert result["losses"][-1] < 1.02 * result["losses"][-2]


def test_a_run_starts_from_another(framework: str, make: Make):
    first = make("first", devices=2, epochs=2)
    second = make("second", devices=2, epochs=1, from_run=first.out)
    one, two = results_of(framework, first, second)
    assert two["losses"][0] < one["losses"][0]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_two_gpus_train_as_well_as_one(framework: str, make: Make, options: dict[str, Any]):
    configs = [make(f"of-{devices}", devices=devices, device="auto", dropout=0.0, **options) for devices in (1, 2)]
    one, two = results_of(framework, *configs)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0.06)
    assert_tested_alike(framework, configs[1], two)


def test_errors(framework: str, make: Make):
    for changes, message in (
        ({"table_on": "host"}, "^table_on: expected device with JAX and on several devices"),
        ({"num_negatives": 1}, "^negatives: expected num_negatives of 2 or more"),
        ({"loss": "bce"}, "^loss: expected softmax where 2 devices have a part"),
    ):
        config = make(devices=2, **changes)
        with pytest.raises((ConfigError, AssertionError), match=message):
            results_of(framework, config)
        assert not Path(config.out).exists()
