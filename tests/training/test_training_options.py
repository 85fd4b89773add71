"""What the options of a training do to its steps, by closed forms and between the frameworks."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.recsys import ConfigError, Split, TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.run.checkpoint_file import NAME, read_checkpoint
from cce_minus.recsys.run.saved_options import left_of
from cce_minus.recsys.run.steps import epoch_steps
from flax import nnx
from safetensors.numpy import load_file

from tests.training.runs import Arrays, JaxRun, TorchRun

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]
Run = TorchRun | JaxRun

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"accumulate": 3, "schedule": "cosine", "negatives": "in-batch", "frequency_rate": 0.1},
    "adam": {"weight_decay": 0.1, "negatives": "all"},
    "adamax": {"weight_decay": 0.1, "negatives": "all", "data_on": "host"},
    "rmsprop": {"weight_decay": 0.1, "negatives": "all", "learning_rate": 1e-4},
    "sgd": {
        "weight_decay": 0.1, "negatives": "all", "momentum": 0.5, "learning_rate": 0.1, "clip_norm": 0.2,
        "ema_decay": 0.5, "schedule": "linear",
    },
}  # fmt: skip


@pytest.fixture
def split(make_config: Make) -> Split:
    return prepare_data(make_config())[1]


def losses_of(run: Run, split: Split, epochs: int = 2) -> np.ndarray:
    """The losses of a run's batches, trained as the configuration says."""
    losses = []
    for epoch in range(epochs):
        for steps in epoch_steps(run.config, split, epoch, on_device=run.config.data_on != "host"):
            losses.append(np.asarray(run.steps(steps)).reshape(-1)[: steps.num_batches])
    return np.concatenate(losses)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frameworks_train_alike(make_config: Make, split: Split, tmp_path: Path, optimizer: str):
    options = {"dropout": 0.0, "learning_rate": 1e-3, "warmup_steps": 2, **OPTIMIZERS[optimizer]}
    config = make_config(optimizer=optimizer, **options)
    sequences = None if config.data_on == "host" else split.train
    runs = TorchRun(config, split, sequences=sequences), JaxRun(config, split, sequences=sequences)
    runs[0].save(tmp_path / "start.safetensors")
    runs[1].load(tmp_path / "start.safetensors")
    start = runs[0].weights
    torch_losses, jax_losses = (losses_of(run, split) for run in runs)
    assert len(torch_losses) == 8
    np.testing.assert_allclose(jax_losses, torch_losses, rtol=1e-4)
    for (name, got), expected in zip(sorted(runs[0].weights.items()), sorted(runs[1].weights.items()), strict=True):
        assert name == expected[0]
        if name.endswith("qkv.bias"):  # as in test_steps
            continue
        moved = np.abs(got - start[name]).max()
        assert moved > 0, name
        assert np.abs(got - expected[1]).mean() < 0.01 * moved, name
    if config.ema_decay:
        for name, average in runs[1].averages.items():
            np.testing.assert_allclose(runs[0].averages[name], average, atol=1e-5, err_msg=name)
    if config.negatives == "in-batch":
        # Batches that only fill the last update have no targets and leave the estimate as it is.
        found, expected = (run.frequencies for run in runs)
        assert found is not None
        assert expected is not None
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def torch_linear(model: torch.nn.Module, inputs: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A loss whose gradient is known, for each element the share of the inputs that are items."""
    total = torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
    return total * (inputs >= 0).float().mean()


def jax_linear(model: nnx.Module, inputs: jax.Array, *_: Any, **__: Any) -> jax.Array:
    total = jnp.stack([parameter.sum() for parameter in jax.tree.leaves(nnx.state(model, nnx.Param))]).sum()
    return total * (inputs >= 0).mean()


def linear_run(framework: str, config: TrainConfig, split: Split) -> Run:
    if framework == "torch":
        return TorchRun(config, split, sequences=split.train, loss=torch_linear)
    return JaxRun(config, split, sequences=split.train, loss=jax_linear)


PLAIN: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5, "warmup_steps": 3}


def gradients_and_rates(config: TrainConfig, split: Split) -> list[tuple[float, float]]:
    """Of the linear loss in each update of an epoch: the mean over its batches, whose number may be less at the end."""
    shares = [float((batch.inputs >= 0).mean()) for batch in epoch_batches(config, split, 0)]
    size = config.accumulate
    means = [float(np.mean(shares[begin : begin + size])) for begin in range(0, len(shares), size)]
    return [(mean, 0.5 * min(1, (update + 1) / 3)) for update, mean in enumerate(means)]


def after(weights: Arrays, move: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {name: move(weight.astype(np.float64)) for name, weight in weights.items()}


def assert_close(got: Arrays, expected: Arrays) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_update_takes_the_mean_gradient_and_averages_follow(
    framework: str, make_config: Make, split: Split, accumulate: int
):
    config = make_config(accumulate=accumulate, ema_decay=0.75, **PLAIN)
    run = linear_run(framework, config, split)
    weights = averages = after(run.weights, lambda weight: weight)
    updates = gradients_and_rates(config, split)
    assert len(updates) == -(-4 // accumulate)
    losses_of(run, split, epochs=1)
    for gradient, rate in updates:
        weights = {name: weight - rate * gradient for name, weight in weights.items()}
        averages = {name: 0.75 * mean + 0.25 * weights[name] for name, mean in averages.items()}
    assert_close(run.weights, weights)
    assert_close(run.averages, averages)


def test_accumulated_batches_are_one_of_all_their_users(framework: str, make_config: Make, split: Split):
    """The 60 users have as many targets each, so that the mean of two batches' losses is that of one of both."""
    found = []
    for batch_size, accumulate in ((10, 2), (20, 1)):
        options = PLAIN | {"dropout": 0.0, "negatives": "all", "batch_size": batch_size, "accumulate": accumulate}
        run = (TorchRun if framework == "torch" else JaxRun)(make_config(**options), split, sequences=split.train)
        found.append((losses_of(run, split, epochs=1).reshape(3, -1).mean(axis=1), run.weights))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_gradients_are_clipped_to_their_norm_over_all_parameters(
    framework: str, make_config: Make, split: Split, clip_norm: float
):
    config = make_config(clip_norm=clip_norm, **PLAIN)
    run = linear_run(framework, config, split)
    before = run.weights
    losses_of(run, split, epochs=1)
    move = np.concatenate([(before[name] - weight).ravel() for name, weight in run.weights.items()])
    root = np.sqrt(move.size)
    expected = sum(rate * min(gradient * root, clip_norm) for gradient, rate in gradients_and_rates(config, split))
    assert np.linalg.norm(move.astype(np.float64)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_weight_decay_is_decoupled_or_a_part_of_the_gradient(
    framework: str, make_config: Make, split: Split, optimizer: str
):
    """In the first step Adam moves by the sign of what it takes for the gradient."""
    options = PLAIN | {"optimizer": optimizer, "weight_decay": 30.0, "batch_size": 60, "warmup_steps": 0}
    if optimizer != "sgd":
        del options["momentum"]
    config = make_config(**options | {"learning_rate": 0.01})
    run = linear_run(framework, config, split)
    before = run.weights
    losses_of(run, split, epochs=1)
    ((gradient, _),) = gradients_and_rates(config, split)
    moves: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "adamw": lambda weight: weight - 0.01 * (1 + 30 * weight),
        "adam": lambda weight: weight - 0.01 * np.sign(gradient + 30 * weight),
        "sgd": lambda weight: weight - 0.01 * (gradient + 30 * weight),
    }
    assert_close(run.weights, after(before, moves[optimizer]))


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "model": "bert4rec"}], ids=["sasrec", "bert4rec"])
def test_portions_change_nothing(
    train: Train, make_config: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
):
    def train_by(most: int) -> Any:
        monkeypatch.setattr(
            "cce_minus.recsys.run.epoch.epoch_steps",
            lambda *data, **named: epoch_steps(*data, **named | {"most": most}),
        )
        return train(make_config(out=f"by {most}", epochs=2, **options))

    whole = train_by(64)
    expected = load_file(whole.weights)
    for most in (1, 3):
        result = train_by(most)
        assert (result.losses, result.valid, result.test) == (whole.losses, whole.valid, whole.test)
        for name, tensor in load_file(result.weights).items():
            np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def written_weights(arrays: Arrays, kind: str) -> Arrays:
    """The arrays of a checkpoint whose names begin with ``kind``, as the file of weights has them."""
    found = {}
    for name, array in arrays.items():
        if name.startswith(kind):
            *parents, leaf = name.removeprefix(kind).removesuffix("/value").replace("/", ".").split(".")
            renamed = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
            found[".".join([*parents, renamed])] = array.T if leaf == "kernel" else array
    return found


def test_averages_are_validated_and_kept_and_resumed(train: Train, framework: str, make_config: Make):
    options = {"ema_decay": 0.8, "accumulate": 3, "optimizer": "sgd", "learning_rate": 0.3, "negatives": "in-batch"}
    first = train(make_config(out="parts", epochs=1, **options))
    tensors, _ = read_checkpoint(Path(first.weights).parent / f"{framework}-checkpoints" / NAME)
    arrays = {name: tensor.array() for name, tensor in tensors.items()}
    kept = load_file(first.weights)
    kinds = {"torch": ("average/", "model/"), "jax": ("averages/", "parameters/")}[framework]
    averages, weights = (written_weights(arrays, kind) for kind in kinds)
    assert set(kept) == set(averages) == set(weights)
    for name, tensor in kept.items():
        np.testing.assert_array_equal(tensor, averages[name], err_msg=name)
    assert np.abs(kept["item_table"] - weights["item_table"]).max() > 1e-4
    config = make_config(out="parts", epochs=1, **options)
    split = prepare_data(config)[1]
    served = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served(Path(first.weights), "cpu")
    got = served.evaluate(split.valid_history, split.valid_target, split, config=config)
    assert got == pytest.approx(first.valid)
    parts = train(replace(config, epochs=2, resume=True))
    whole = train(make_config(out="whole", epochs=2, **options))
    assert (parts.losses, parts.test, parts.valid) == (whole.losses, whole.test, whole.valid)
    expected = load_file(whole.weights)
    for name, tensor in load_file(parts.weights).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_a_run_whose_rate_falls_keeps_its_epochs(make_config: Make):
    train = importlib.import_module("cce_minus.torch_impl.train").train
    config = make_config(epochs=1, schedule="cosine")
    result = train(config)
    with pytest.raises(ConfigError, match="epochs: expected 1 as in the run to resume, got 2"):
        train(replace(config, epochs=2, resume=True))
    with pytest.raises(ConfigError, match="schedule: expected 'cosine' as in the run to resume, got 'constant'"):
        train(replace(config, schedule="constant", resume=True))
    assert train(replace(config, data_on="host", profile=True, deterministic=True, resume=True)).test == result.test


def test_a_profile_has_the_whole_run_and_a_trace(train: Train, make_config: Make):
    out = Path(make_config(epochs=2, profile=True).out)
    train(make_config(epochs=2, profile=True))
    parts = {part["name"]: part for part in json.loads((out / "profile.json").read_text())["parts"]}
    whole = parts.pop("whole")["seconds"]
    assert sum(part["seconds"] for part in parts.values()) == pytest.approx(whole)
    assert {"load", "model", "first steps", "steps", "validation", "checkpoints", "test", "other"} <= set(parts)
    assert parts["validation"]["count"] == 2
    assert any(path.stat().st_size > 1000 for path in (out / "trace").rglob("*") if path.is_file())


def test_what_is_left_to_the_log_is_stored_and_resumed(train: Train, make_config: Make, tmp_path: Path):
    """Users have ten items to train on; 40 items are few."""
    left: dict[str, Any] = {"max_length": 0, "negatives": "auto", "num_negatives": 0, "group_size": 128}
    whole = train(make_config("whole", **left, epochs=2))
    stored = TrainConfig.read(Path(whole.weights).parent / "config.json")
    assert (stored.max_length, stored.negatives) == (16, "all")
    assert left_of(Path(whole.weights).parent / "config.json") == ("max_length", "negatives", "patience")
    train(make_config("parts", **left, epochs=1))
    resumed = train(make_config("parts", **left, epochs=2, resume=True))
    assert resumed.test == whole.test
    assert left_of(Path(resumed.weights).parent / "config.json") == ("max_length", "negatives", "patience")
    fixed: dict[str, Any] = {"negatives": "uniform", "num_negatives": 20, "group_size": 128, "max_length": 12}
    train(make_config("fixed", **fixed, epochs=1))
    config = (tmp_path / "fixed" / "config.json").read_text()
    for changes, message in (
        ({"max_length": 0}, "max_length: expected 12 as in the run to resume, got 16"),
        ({"negatives": "auto", "num_negatives": 0}, "negatives: expected 'uniform'"),
    ):  # what the log leaves to it is not what that run had
        with pytest.raises(ConfigError, match=message):
            train(make_config("fixed", **fixed | changes, epochs=2, resume=True))
        assert (tmp_path / "fixed" / "config.json").read_text() == config
    for changes, message in (
        ({"max_length": 8}, "max_length: expected 16 as in the run to resume, got 8"),
        ({"negatives": "uniform"}, "negatives: expected 'all' as in the run to resume, got 'uniform'"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(make_config("parts", **left | changes, epochs=2, resume=True))
