"""On a GPU: PyTorch's training with captured steps is the same training without them, and resumes."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import triton
from cce_minus.kernels.launch import programs
from cce_minus.kernels.launch.ranking import ranking_program
from cce_minus.recsys import Ragged, TrainConfig, prepare_data
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.serving.evaluation import HeldOut
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.serving.evaluate import Ranker, start_evaluation_on
from cce_minus.torch_impl.serving.ranking import top_items
from cce_minus.torch_impl.train import train
from cce_minus.torch_impl.training import steps as steps_module
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from tests.training.runs import eager_steps

pytestmark = pytest.mark.gpu

Make = Callable[..., TrainConfig]

FEW = {"num_negatives": 8, "group_size": 128}  # draws of a batch: at most half of the items

RUNS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "half precision": {"precision": "bf16"},
    "independent": {"group_size": 1},
    "all": {"negatives": "all"},
    "popularity": {"negatives": "popularity"},
    "in-batch": {"negatives": "in-batch"},
    "gbce": {"loss": "gbce"},
    "sce": {"loss": "sce"},
    "bert4rec": {"model": "bert4rec"},
    "ligr": {"model": "ligr"},
    "accumulated": {"accumulate": 2},
    "accumulated in-batch": {"accumulate": 3, "negatives": "in-batch"},
    "clipped": {"clip_norm": 0.05},
    "averaged": {"ema_decay": 0.9},
    "falling rate": {"schedule": "cosine"},
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "adamax": {"optimizer": "adamax", "weight_decay": 0.01},
    "rmsprop": {"optimizer": "rmsprop", "weight_decay": 0.01},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.01, "learning_rate": 0.1},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
    "data on the host": {"data_on": "host"},
    "rows alone": {"item_optimizer": "partial-rowwise-adam", **FEW},
    "rows in half precision": {
        "item_optimizer": "rowwise-adagrad", "item_learning_rate": 0.05, "clip_norm": 0.05, "precision": "bf16", **FEW,
    },
    "rows of the host": {"item_optimizer": "partial-rowwise-adam", "table_on": "host", **FEW},
}  # fmt: skip

HALF = ("half precision", "rows in half precision")


@pytest.mark.parametrize("name", RUNS)
def test_captured_training_is_eager_training(name: str, make_config: Make):
    options = {"device": "cuda", "dropout": 0.3, **RUNS[name]}
    with mock.patch.object(steps_module, "as_graph", wraps=steps_module.as_graph) as capture:
        captured = train(make_config("captured", **options))
        graphs = 1 if options.get("accumulate", 1) == 1 else 2  # a batch's, and an update's
        assert capture.call_count == graphs
        with eager_steps():
            eager = train(make_config("eager", **options))
        assert capture.call_count == graphs
    assert len(set(captured.losses)) == len(captured.losses)
    assert captured.losses == pytest.approx(eager.losses, rel=1e-2 if name in HALF else 1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "grouped",
        "rows alone",
        "rows of the host",
        "half precision",
        "in-batch",
        "accumulated",
        "averaged",
        "adam",
        "sgd",
    ],
)
def test_resumed_captured_training_equals_an_uninterrupted_one(name: str, make_config: Make):
    options = {"device": "cuda", **RUNS[name]}
    whole = train(make_config("whole", epochs=4, **options))
    first = make_config("parts", epochs=2, **options)
    train(first)
    parts = train(replace(first, epochs=4, resume=True))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-2 if name in HALF else 1e-4)


@pytest.mark.parametrize(
    "name", ["grouped", "rows alone", "half precision", "in-batch", "sce", "bert4rec", "accumulated", "averaged"]
)
def test_deterministic_training_repeats_and_resumes_bit_for_bit(framework: str, name: str, make_config: Make):
    train = importlib.import_module(f"cce_minus.{framework}_impl.train").train
    options = {"device": "cuda", "deterministic": True, **RUNS[name]}
    whole = train(make_config("whole", epochs=4, **options))
    again = train(make_config("again", epochs=4, **options))
    first = make_config("parts", epochs=2, **options)
    train(first)
    parts = train(replace(first, epochs=4, resume=True))
    expected = load_file(whole.weights)
    for result in (again, parts):
        assert (result.losses, result.valid, result.test) == (whole.losses, whole.valid, whole.test)
        for tensor_name, tensor in load_file(result.weights).items():
            np.testing.assert_array_equal(tensor, expected[tensor_name], err_msg=tensor_name)


@pytest.mark.parametrize("optimizer", ["rowwise-adagrad", "partial-rowwise-adam", "lazy-adam"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_table_in_the_hosts_memory_is_trained_and_served_alike(
    optimizer: str, dtype: str, make_config: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.import_module("cce_minus.torch_impl.training.trainer"), "MOST_BATCHES", 3)
    options = {"device": "cuda", "deterministic": True, "item_optimizer": optimizer, "table_dtype": dtype, **FEW}
    expected = train(make_config("device", epochs=4, **options))
    first = make_config("host", epochs=2, table_on="host", **options)
    train(first)
    result = train(replace(first, epochs=4, resume=True))
    assert (result.losses, result.valid, result.test) == (expected.losses, expected.valid, expected.test)
    wanted = load_torch(expected.weights)
    for name, tensor in load_torch(result.weights).items():
        assert torch.equal(tensor, wanted[name]), name
    _, split = prepare_data(first)
    serve = importlib.import_module("cce_minus.torch_impl.serve")
    on_device = serve.load_served(Path(result.weights), "cuda")
    monkeypatch.setattr(serve, "_MOST_OF_DEVICE", 0.0)
    on_host = serve.load_served(Path(result.weights), "cuda")
    parts = split.test_history, split.test_target, split
    assert on_host.evaluate(*parts, config=first) == on_device.evaluate(*parts, config=first)
    tables = [model.item_vectors().array() for model in (on_host, on_device)]
    np.testing.assert_array_equal(*tables)


def test_captured_rankings_leave_out_seen_items(framework: str, make_config: Make):
    """PyTorch validates by a CUDA graph, JAX by a scan; ``evaluate`` of the weights ranks batch by batch."""
    config = make_config("seen", device="cuda", epochs=2, filter_seen=True, metrics_at="3,10")
    result = importlib.import_module(f"cce_minus.{framework}_impl.train").train(config)
    _, split = prepare_data(config)
    served = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served(Path(result.weights), "cuda")
    got = served.evaluate(split.valid_history, split.valid_target, split, config=config)
    assert got == pytest.approx(result.valid)


@pytest.mark.parametrize("filter_seen", [False, True])
def test_a_ranking_compiled_ahead_leaves_nothing_to_compile(filter_seen: bool, monkeypatch: pytest.MonkeyPatch):
    """PyTorch's kernels; where nothing is compiled ahead, the ranking compiles its own."""
    monkeypatch.setattr(programs, "_variants", {})
    ranking_program.cache_clear()
    model = build_model(ModelConfig(3000, max_length=12, dim=48)).cuda().eval()
    rng = np.random.default_rng(0)
    rows = Ragged.from_rows(list(rng.integers(0, 3000, (70, 9), dtype=np.int32)))
    batches = HeldOut(rows, rows.values[:70], max_length=12, filter_seen=filter_seen, batch_size=32)
    ranker = Ranker(model, captures=True)
    ranker.compile_ahead(batches, (7,))
    for thread in threading.enumerate():
        if thread.name == "compile the ranking":
            thread.join()
    compiled = set(programs._variants)
    assert compiled
    start_evaluation_on(batches, ranker, cutoffs=(7,))()
    assert set(programs._variants) == compiled


def test_a_callers_asynchronous_compilation_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "_variants", {})
    ranking_program.cache_clear()
    rng = np.random.default_rng(0)
    hidden, table = (torch.tensor(rng.standard_normal((rows, 40)), dtype=torch.float32) for rows in (5, 900))
    expected = top_items(hidden, table, 3)
    with ThreadPoolExecutor(2) as pool, triton.AsyncCompileMode(pool):
        got = top_items(hidden.cuda(), table.cuda(), 3)
    torch.testing.assert_close(got.cpu(), expected)
