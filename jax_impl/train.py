"""Training a sequence model with Flax NNX, Optax and Orbax."""

from __future__ import annotations

import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..kernels.negatives.objectives import Objective
from ..recsys import MetricsLog, Split, TrainConfig, epoch_batches, evaluation_options, num_batches, prepare_data
from ..recsys.run.learning_curve import plot_learning_curve
from ..recsys.run.model_config import ModelConfig
from ..recsys.run.progress import Progress, TrainResult, metric_names
from ..recsys.run.run_directory import RunDirectory, open_run
from ..recsys.run.side_information import side_information
from .devices import on_device
from .models import build_model
from .models.sequence_model import SequenceModel
from .models.weights import load_weights, save_weights
from .serving.evaluate import evaluate
from .training.checkpoints import Checkpoints, TrainingState, open_checkpoints
from .training.objective import make_optimizer, objective_of, start_frequencies, step_seed, train_step

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": jnp.float32, "bf16": jnp.bfloat16}


def train(config: TrainConfig) -> TrainResult:
    """Trains the model as ``config`` says and tests the weights of the epoch with the best validation NDCG@10.

    With ``train_on_valid`` there is no validation, and the last epoch's weights are tested.

    Writes to ``config.out``: config.json, catalog.parquet, metrics.csv (a row an epoch), best.safetensors, result.json,
    learning_curve.png and, after every epoch, a checkpoint in jax-checkpoints, from which ``resume`` continues.
    Batches, negatives and dropout follow from (seed, epoch, step), so a killed and resumed run ends with the result of
    an uninterrupted one (on CUDA up to XLA's own rounding, unless XLA_FLAGS=--xla_gpu_deterministic_ops=true).

    XLA takes three quarters of a GPU's memory at its first use and leaves little to the PyTorch tensors of
    other work on that GPU: set XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment to let it grow as
    needed.

    Raises ``DataError`` for unusable data and ``ConfigError`` for unusable options, initial weights or
    folder, all before the first step.
    """
    with on_device(config.device):
        interactions, split = prepare_data(config)
        side = side_information(config, interactions)
        model = build_model(
            ModelConfig.from_train(config, split.num_items, side.num_features),
            rngs=nnx.Rngs(config.seed),
            dtype=_DTYPES[config.precision],
        )
        model.start_items(side)
        if config.init_weights is not None:
            load_weights(model, config.init_weights)
            side.require_same(config.init_weights, "init_weights")
        objective = objective_of(config, split)
        run = open_run(config, "jax", interactions)
        if config.resume and run.best_weights.exists():
            side.require_same(run.best_weights, "resume")
        with open_checkpoints(run.checkpoints) as checkpoints, logging_redirect_tqdm():
            progress = _fit(model, split, config, objective, run, checkpoints)
        load_weights(model, run.best_weights)
        test = evaluate(model, split.test_history, split.test_target, **evaluation_options(config, split))
    result = TrainResult.from_progress(progress, test=test, weights=run.best_weights)
    result.write(run.result)
    plot_learning_curve({"JAX": run.metrics_log}, run.learning_curve)
    logger.info("%s", result.summary())
    return result


def _fit(
    model: SequenceModel,
    split: Split,
    config: TrainConfig,
    objective: Objective,
    run: RunDirectory,
    checkpoints: Checkpoints,
) -> Progress:
    """Trains until the epochs or the patience are used up, from the last checkpoint if there is one.

    Weights and log are written before the checkpoint of the same epoch. A run killed in between repeats
    that epoch and writes the same again.
    """
    state = model, make_optimizer(model, config), start_frequencies(objective, split)
    progress = checkpoints.restore(state)
    evaluation = evaluation_options(config, split)
    names = metric_names(evaluation["cutoffs"])
    log = MetricsLog(run.metrics_log, metric_names=names, resume_after=progress.epochs - 1)
    started = time.perf_counter() - progress.seconds
    while progress.epochs < config.epochs and progress.validations_since_best < config.patience:
        epoch = progress.epochs
        loss = _train_epoch(state, split, config, objective, epoch)
        metrics: dict[str, float] = {}
        if not config.train_on_valid and (epoch + 1) % config.eval_every == 0:
            metrics = evaluate(model, split.valid_history, split.valid_target, **evaluation)
        if progress.update(loss, metrics, time.perf_counter() - started, keep_last=config.train_on_valid):
            save_weights(model, run.best_weights)
        steps = (epoch + 1) * num_batches(split.train, batch_size=config.batch_size)
        log.append(epoch=epoch, step=steps, train_loss=loss, metrics=metrics, seconds=progress.seconds)
        checkpoints.save(state, progress)
        logger.info("%s", progress.line(metrics))
    return progress


def _train_epoch(state: TrainingState, split: Split, config: TrainConfig, objective: Objective, epoch: int) -> float:
    """Trains one epoch and returns the mean of its steps' losses, the only number that waits for the
    device."""
    batches = epoch_batches(config, split, epoch)
    total = num_batches(split.train, batch_size=config.batch_size)
    losses = []
    # disable=None: no bar where the output is no terminal.
    with tqdm(batches, desc=f"epoch {epoch}", total=total, leave=False, disable=None) as bar:
        for step, batch in enumerate(bar, start=epoch * total):
            seed = step_seed(config, step)
            losses.append(train_step(*state, batch.inputs, batch.targets, seed, objective=objective))
    return float(np.mean(jax.device_get(losses)))


if __name__ == "__main__":
    from .cli import main

    main()
