"""The demonstration itself: both trainings, their comparison and the baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy.typing as npt
import torch
from cce_minus.jax_impl import models as jax_models
from cce_minus.jax_impl import train as jax_train
from cce_minus.jax_impl.models import weights as jax_weights
from cce_minus.jax_impl.serving import recommend as jax_recommend
from cce_minus.recsys import Interactions, PopularityBaseline, TrainConfig, prepare_data
from cce_minus.recsys.run.learning_curve import plot_learning_curve
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl import models as torch_models
from cce_minus.torch_impl import train as torch_train
from cce_minus.torch_impl.models import weights as torch_weights
from cce_minus.torch_impl.serving import recommend as torch_recommend
from flax import nnx
from rich.console import Console

from .agreement import largest_loss_difference
from .report import MAX_DIFFERENCE, Entry, broken_promises, results_table

TOP = 5
LAST_SEEN = 3
STEPS = 20


def run_demo(config: TrainConfig, console: Console) -> list[str]:
    """Trains both models as ``config`` says, prints the table and returns a sentence for each broken promise.

    Everything is written below ``config.out``: initial.safetensors, the runs of PyTorch and of JAX, curves.png.
    """
    started = time.perf_counter()
    out = Path(config.out)
    interactions, split = prepare_data(config)
    shape = ModelConfig.from_train(config, split.num_items)
    console.print(
        f"{config.data}: {len(interactions.item)} interactions, {len(split.train)} users, {split.num_items} items. "
        f"SASRec of width {config.dim}, {_loss_name(config)}."
    )
    baseline = PopularityBaseline(split.train, split.num_items)
    history = split.test_history[0]
    popularity = Entry("popularity", baseline.metrics(split.test_target), _titles(interactions, baseline.top(TOP)))

    initial = out / "initial.safetensors"
    torch.manual_seed(config.seed)
    torch_model = torch_models.build_model(shape)
    torch_weights.save_weights(torch_model, initial)
    console.rule(f"1 of 3: {STEPS} steps of both from identical weights")
    difference = largest_loss_difference(config, split, initial, out, steps=STEPS)

    console.rule("2 of 3: training with PyTorch")
    torch_result = torch_train.train(replace(config, out=str(out / "torch"), init_weights=str(initial)))
    torch_weights.load_weights(torch_model, torch_result.weights)
    torch_top = torch_recommend.recommend(torch_model, [history], TOP)[0]

    console.rule("3 of 3: training with JAX")
    jax_result = jax_train.train(replace(config, out=str(out / "jax"), init_weights=str(initial)))
    jax_model = jax_models.build_model(shape, rngs=nnx.Rngs(0))
    jax_weights.load_weights(jax_model, jax_result.weights)
    jax_top = jax_recommend.recommend(jax_model, [history], TOP)[0]

    models = [
        Entry("PyTorch", torch_result.test, _titles(interactions, torch_top), torch_result),
        Entry("JAX", jax_result.test, _titles(interactions, jax_top), jax_result),
    ]
    held_out = _titles(interactions, split.test_target[:1])[0]
    last_seen = _titles(interactions, history[-LAST_SEEN:])
    console.print(results_table([popularity, *models], history=last_seen, held_out=held_out))
    console.print(
        f"Largest relative difference of the frameworks' losses over {STEPS} separate steps, dropout 0: "
        f"{difference:.1e} (at most {MAX_DIFFERENCE:.0e})"
    )
    logs = {"PyTorch": out / "torch" / "metrics.csv", "JAX": out / "jax" / "metrics.csv"}
    curves = out / "curves.png"
    plot_learning_curve(logs, curves, baselines={"popularity": baseline.metrics(split.valid_target)["ndcg@10"]})
    console.print(f"Learning curves: {curves}")
    console.print(f"Took {time.perf_counter() - started:.0f} s")
    return broken_promises(popularity, models, difference)


def _loss_name(config: TrainConfig) -> str:
    if (config.loss, config.negatives) == ("softmax", "uniform"):
        return f"cross-entropy with {config.num_negatives} sampled negatives shared by groups of {config.group_size}"
    return f"loss {config.loss} with negatives {config.negatives}"


def _titles(interactions: Interactions, items: npt.NDArray) -> Sequence[str]:
    if interactions.item_titles is None:
        return [str(interactions.item_labels[item]) for item in items]
    return [interactions.item_titles[item] for item in items]
