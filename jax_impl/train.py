"""Training a sequence model with Flax NNX, Optax and Orbax."""

from __future__ import annotations

import jax
from flax import nnx
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..kernels.negatives.objectives import Objective
from ..recsys import Split, TrainConfig, epoch_batches, evaluation_options, num_batches, prepare_data
from ..recsys.run.losses import EpochLosses, require_finite_weights
from ..recsys.run.model_config import ModelConfig
from ..recsys.run.progress import Progress, TrainResult
from ..recsys.run.recorder import Recorder, finish_run
from ..recsys.run.run_directory import RunDirectory, claim_run, find_run
from ..recsys.run.side_information import side_information
from .devices import enough_memory, on_device
from .models import DTYPES, build_model
from .models.sequence_model import SequenceModel
from .models.weights import largest_weight, load_weights, save_weights
from .serve import ServedModel
from .serving.evaluate import evaluate
from .training.checkpoints import TrainingState, open_checkpoints
from .training.objective import make_optimizer, objective_of, start_frequencies, step_seed, train_step, try_loss


@enough_memory()
def train(config: TrainConfig) -> TrainResult:
    """Trains the model as ``config`` says and tests the weights of the epoch with the best validation NDCG@10.

    With ``train_on_valid`` there is no validation, and the last epoch's weights are tested.

    Writes to ``config.out``: config.json, catalog.parquet, data.json, metrics.csv (a row an epoch), best.safetensors,
    result.json, learning_curve.png and, after every epoch, a checkpoint in jax-checkpoints, from which ``resume``
    continues. Batches, negatives and dropout follow from (seed, epoch, step), so a killed and resumed run ends with the
    result of an uninterrupted one (on CUDA up to XLA's own rounding, unless
    XLA_FLAGS=--xla_gpu_deterministic_ops=true).

    XLA takes three quarters of a GPU's memory at its first use and leaves little to the PyTorch tensors of other work
    on that GPU: set XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment to let it grow as needed.

    Raises ``DataError`` for unusable data and ``ConfigError`` for unusable options, initial weights or folder, before
    the first step and with no folder left behind, and ``DivergedError`` once the loss or the weights are not finite:
    the folder keeps the best weights and the checkpoint of earlier epochs.
    """
    with on_device(config.device):
        run = find_run(config, "jax")
        interactions, split = prepare_data(config)
        side = side_information(config, interactions)
        model = build_model(
            ModelConfig.from_train(config, split.num_items, side.num_features),
            rngs=nnx.Rngs(config.seed),
            dtype=DTYPES[config.precision],
        )
        model.start_items(side)
        if config.init_weights is not None:
            load_weights(model, config.init_weights)
            side.require_same(config.init_weights, "init_weights")
        if config.resume and run.best_weights.exists():
            side.require_same(run.best_weights, "resume")
        objective = objective_of(config, split)
        try_loss(model, objective, config, split)
        with claim_run(run, config, interactions, split):
            progress = _fit(model, split, config, objective, run)
        load_weights(model, run.best_weights)
    served = ServedModel(model, config.device)
    test = served.evaluate(split.test_history, split.test_target, split, config=config)
    return finish_run(run, progress, test, name="JAX")


def _fit(model: SequenceModel, split: Split, config: TrainConfig, objective: Objective, run: RunDirectory) -> Progress:
    """Trains until the epochs or the patience are used up, from the last checkpoint if there is one."""
    state = model, make_optimizer(model, config), start_frequencies(objective, split)
    evaluation = evaluation_options(config, split)
    with open_checkpoints(run.checkpoints) as checkpoints, logging_redirect_tqdm():
        progress = checkpoints.restore(state)
        recorder = Recorder(run, config, progress)
        while progress.epochs < config.epochs and progress.validations_since_best < config.patience:
            epoch = progress.epochs
            loss = _train_epoch(state, split, config, objective, epoch)
            require_finite_weights(largest_weight(model), epoch)
            metrics: dict[str, float] = {}
            if not config.train_on_valid and (epoch + 1) % config.eval_every == 0:
                metrics = evaluate(model, split.valid_history, split.valid_target, **evaluation)
            recorder.end_epoch(
                step=(epoch + 1) * num_batches(split.train, batch_size=config.batch_size),
                loss=loss,
                metrics=metrics,
                save_weights=lambda path: save_weights(model, path),
            )
            checkpoints.save(state, progress)
    return progress


def _train_epoch(state: TrainingState, split: Split, config: TrainConfig, objective: Objective, epoch: int) -> float:
    """Trains one epoch and returns the mean of its steps' losses, the only numbers that wait for the device."""
    batches = epoch_batches(config, split, epoch)
    total = num_batches(split.train, batch_size=config.batch_size)
    losses = EpochLosses(epoch, epoch * total, jax.device_get)
    # disable=None: no bar where the output is no terminal.
    with tqdm(batches, desc=f"epoch {epoch}", total=total, leave=False, disable=None) as bar:
        for step, batch in enumerate(bar, start=epoch * total):
            seed = step_seed(config, step)
            losses.add(train_step(*state, batch.inputs, batch.targets, seed, objective=objective))
    return losses.mean()


if __name__ == "__main__":
    from .cli import main

    main()
