"""Every loss with every kind of negatives it is defined with: the twins agree, and a step makes the loss smaller."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.kernels.negatives.objectives import Objective, make_objective
from cce_minus.kernels.negatives.samplers import LogUniformNegatives, PopularityNegatives, UniformNegatives
from cce_minus.recsys import (
    IGNORE,
    Split,
    TrainConfig,
    item_counts,
    loss_options,
    mean_targets,
    prepare_data,
    train_batches,
)

from tests.training.runs import JaxRun, TorchRun

PAIRS = {
    "softmax-uniform": {},
    "softmax-all": {"negatives": "all"},
    "softmax-popularity": {"negatives": "popularity", "popularity_power": 0.5},
    "softmax-log-uniform": {"negatives": "log-uniform"},
    "softmax-in-batch": {"negatives": "in-batch", "frequency_rate": 0.1},
    "softmax-mixed": {"negatives": "mixed", "num_negatives": 8, "frequency_rate": 0.1},
    "softmax-hard": {"negatives": "hard", "pool_size": 24, "num_negatives": 8},
    "softmax-uncorrected": {"logq_correction": False},
    "bce-uniform": {"loss": "bce", "num_negatives": 1, "group_size": 1},
    "bce-popularity": {"loss": "bce", "negatives": "popularity"},
    "bce-log-uniform": {"loss": "bce", "negatives": "log-uniform"},
    "gbce-uniform": {"loss": "gbce", "gbce_t": 0.9},
    "sce": {"loss": "sce", "bucket_size_y": 16, "n_buckets": 12},
    "sce-mixed": {"loss": "sce", "bucket_size_y": 16, "mix_x": True},
}
Make = Callable[..., TrainConfig]


@pytest.fixture
def split(make_config: Make) -> Split:
    return prepare_data(make_config())[1]


@pytest.mark.parametrize("options", PAIRS.values(), ids=PAIRS)
def test_twins_agree_and_learn(make_config: Make, split: Split, tmp_path: Path, options: dict):
    config = make_config(dropout=0.0, warmup_steps=0, **options)
    batch = next(
        train_batches(split.train, batch_size=config.batch_size, max_length=config.max_length, seed=0, epoch=0)
    )
    torch_run, jax_run = TorchRun(config, split), JaxRun(config, split)
    curves = np.zeros((2, 3))
    for step in range(3):
        # The twin takes over the weights before each step, so that rounding in the optimiser adds nothing up.
        torch_run.save(tmp_path / "shared.safetensors")
        jax_run.load(tmp_path / "shared.safetensors")
        # The same step's draws each time, so that the loss is the same function of the weights.
        curves[:, step] = torch_run.step(batch, 7), jax_run.step(batch, 7)
    differences = np.abs(curves[1] / curves[0] - 1)
    if config.loss == "sce" or config.negatives == "hard":
        # Items are chosen by their scores, so that rounding may choose another one in a step: seen were changes of
        # 8e-4.
        assert differences.min() < 1e-5
        assert differences.max() < 3e-3
    else:
        assert differences.max() < 1e-5
    assert curves[0, 2] < curves[0, 0]
    assert torch_run.objective.frequency_rate == options.get("frequency_rate")
    assert (torch_run.frequencies is None) == (jax_run.frequencies is None) == ("frequency_rate" not in options)


def test_frequencies_follow_the_targets(make_config: Make, split: Split):
    config = make_config(dropout=0.0, warmup_steps=0, **PAIRS["softmax-in-batch"])
    torch_run, jax_run = TorchRun(config, split), JaxRun(config, split)
    expected = (item_counts(split.train, split.num_items) + 1.0) / (len(split.train.values) + split.num_items)
    for step, batch in enumerate(train_batches(split.train, batch_size=16, max_length=12, seed=0, epoch=0)):
        torch_run.step(batch, step)
        jax_run.step(batch, step)
        targets = batch.targets[batch.targets != IGNORE]
        expected = 0.9 * expected + 0.1 * np.bincount(targets, minlength=split.num_items) / len(targets)
    assert torch_run.frequencies is not None
    assert jax_run.frequencies is not None
    np.testing.assert_allclose(torch_run.frequencies, expected, rtol=1e-5)
    np.testing.assert_allclose(jax_run.frequencies, expected, rtol=1e-5)


def objective(config: TrainConfig, split: Split) -> Objective:
    return make_objective(**loss_options(config, split))


class Embeddings(torch.nn.Module):
    """A model of given hidden states and item rows, in either framework."""

    def __init__(self, hidden: Any, rows: Any) -> None:
        super().__init__()
        self.hidden, self.rows, self.dtype = hidden, rows, hidden.dtype

    def item_rows(self) -> Any:
        return self.rows

    def forward(self, inputs: Any, rows: Any, rngs: Any = None) -> Any:
        return self.hidden


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "log-uniform", "in-batch", "mixed"])
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_correction_is_that_of_the_loss(make_config: Make, split: Split, framework: str, negatives: str):
    implementation = importlib.import_module(f"cce_minus.{framework}_impl.training.objective")
    as_array = torch.from_numpy if framework == "torch" else jnp.asarray
    rng = np.random.default_rng(0)
    hidden = as_array(rng.standard_normal((4, 8, 16), dtype=np.float32))
    rows = as_array(rng.standard_normal((split.num_items, 16), dtype=np.float32))
    targets = as_array(rng.integers(0, split.num_items, (4, 8), dtype=np.int32))
    losses = {}
    for corrected in (True, False):
        config = make_config(negatives=negatives, logq_correction=corrected)
        goal, seed = implementation.objective_of(config, split), implementation.step_seed(config, 3)
        followed = implementation.follow(implementation.start_frequencies(goal, split), targets, goal)
        assert (followed is None) == (not corrected or negatives not in ("in-batch", "mixed"))
        log_q = None if followed is None else as_array(np.log(np.asarray(followed)))
        losses[corrected] = implementation.training_loss(
            Embeddings(hidden, rows), targets, targets, seed, objective=goal, frequencies=followed
        )
        direct = implementation.sampled_linear_cross_entropy(
            hidden, rows, targets, goal.sampler, log_q=log_q, logq_correction=corrected, seed=seed
        )
        assert float(losses[corrected]) == pytest.approx(float(direct), rel=1e-6)
    assert abs(float(losses[True]) - float(losses[False])) > 1e-2


def test_popularity_is_that_of_the_training_part(make_config: Make, split: Split):
    sampler = objective(make_config(negatives="popularity", popularity_power=0.5), split).sampler
    assert isinstance(sampler, PopularityNegatives)
    np.testing.assert_array_equal(
        np.asarray(sampler.counts), np.bincount(split.train.values, minlength=split.num_items)
    )
    assert (sampler.num_negatives, sampler.alpha, sampler.group_size, sampler.shuffle_rows) == (20, 0.5, 16, True)


def test_log_uniform_negatives_go_by_rank_whatever_the_ids(make_config: Make, split: Split):
    sampler = objective(make_config(negatives="log-uniform"), split).sampler
    assert isinstance(sampler, PopularityNegatives)
    weights, counts = sampler.weights(split.num_items), item_counts(split.train, split.num_items)
    by_popularity = np.lexsort((np.arange(split.num_items), -counts))
    expected = LogUniformNegatives(1).weights(split.num_items)
    np.testing.assert_allclose(weights[by_popularity], expected / expected[0])


def test_equal_objectives_share_a_compiled_step(make_config: Make, split: Split):
    first, second = (objective(make_config(out=out, seed=seed), split) for out, seed in (("a", 0), ("b", 1)))
    assert first == second
    assert hash(first) == hash(second)
    assert first.sampler == UniformNegatives(20, 16)
    assert first != objective(make_config(num_negatives=21), split)


def test_sizes_of_0_follow_from_the_mean_batch(make_config: Make, split: Split):
    positions = mean_targets(split.train, batch_size=16, max_length=12)
    buckets = objective(make_config(loss="sce", bucket_size_y=9), split).buckets
    assert buckets is not None
    assert buckets.n_buckets == buckets.bucket_size_x == round(2 * math.sqrt(positions))
    assert (buckets.bucket_size_y, buckets.mix_x) == (9, False)
    buckets = objective(make_config(loss="sce", n_buckets=3, bucket_size_x=4), split).buckets
    assert buckets is not None
    assert (buckets.n_buckets, buckets.bucket_size_x) == (3, 4)
