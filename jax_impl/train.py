"""Training a sequence model with Flax NNX and Optax."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flax import nnx
from tqdm.contrib.logging import logging_redirect_tqdm

from ..interop import local_gpus
from ..recsys import TrainConfig, num_batches, prepare_data
from ..recsys.run.background import import_ahead, in_thread
from ..recsys.run.callbacks import Callbacks
from ..recsys.run.data_summary import data_summary
from ..recsys.run.events import Callback
from ..recsys.run.experiment import popularity_metrics
from ..recsys.run.fingerprint import Fingerprint
from ..recsys.run.item_optimizer import item_rule, require_shareable
from ..recsys.run.left_to_the_log import left_names, resolved
from ..recsys.run.memory_estimate import require_memory
from ..recsys.run.model_config import ModelConfig
from ..recsys.run.profile import Profile
from ..recsys.run.progress import TrainResult
from ..recsys.run.recorder import Recorder, finish_run
from ..recsys.run.run_directory import claim_run, find_run
from ..recsys.run.side_information import side_information
from ..recsys.run.steps import stay_on_device
from ..recsys.run.training_loop import run_epochs
from ..recsys.run.warm_start import EarlierRun, require_same_items
from .devices import enough_memory, is_cpu, memory, on_device
from .models import DTYPES, build_model
from .models.sharded import build_sharded_model
from .models.weights import load_weights, start_weights
from .processes import Processes, joined
from .ranks import mesh_of
from .training.trainer import Trainer

logger = logging.getLogger(__name__)


def train(config: TrainConfig, *, callbacks: Sequence[Callback] = ()) -> TrainResult:
    """Trains the model as ``config`` says and tests the weights of the epoch with the best validation NDCG@10.

    With ``train_on_valid`` there is no validation, and the last epoch's weights are tested; with ``split = none`` there
    is no test either. ``from_run`` starts from the weights of an earlier run, and from its optimizer's state where that
    fits.

    Writes to ``config.out``: config.json, catalog.parquet, data.json, metrics.csv (a row an epoch), best.safetensors,
    result.json, learning_curve.png and, after every epoch, jax-checkpoints/last.safetensors, from which ``resume``
    continues. Batches, negatives and dropout follow from (seed, epoch, step), so a killed and resumed run ends with the
    result of an uninterrupted one (on CUDA up to XLA's own rounding, unless ``deterministic``).

    With ``devices`` so many of this host's share each batch, and gradients are those of all of its targets: each takes
    its part and has its own draws. Where the item table has an optimizer of its own, each has a part of the table.
    Processes that were started together by JAX's own means (`joined`) train on the devices of all of them, and the
    first one writes: all have the same folder.

    Each of ``callbacks`` is told the run's events (`recsys.run.events`), after the loggers of ``log_to``: by the first
    process alone.

    XLA takes three quarters of a GPU's memory at its first use and leaves little to the PyTorch tensors of other work
    on that GPU: set XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment to let it grow as needed.

    Raises ``DataError`` for unusable data and ``ConfigError`` for unusable options, initial weights or folder, before
    the first step and with no folder left behind, and ``DivergedError`` once the loss or the weights are not finite:
    the folder keeps the best weights and the checkpoint of earlier epochs. What one of several processes refuses is
    raised on all, and a ``RankError`` where one has ended.
    """
    with joined(config) as processes:
        return _train(config, processes, callbacks)


@enough_memory()
def _train(config: TrainConfig, processes: Processes, callbacks: Sequence[Callback]) -> TrainResult:
    """As one of the ``processes``."""
    profile = Profile()
    with on_device(config.device), logging_redirect_tqdm():
        if local_gpus():
            import_ahead("torch")  # the kernels' compiler needs it
        with processes.together():
            mesh = mesh_of(config, processes.number)
            if mesh is not None:
                config = replace(config, devices=mesh.size)
            run = find_run(config, "jax")
            told = Callbacks(run, config, callbacks, tells=processes.is_first, agree=processes.any)
            earlier = EarlierRun.of(config, run)
            with profile.part("load"):
                interactions, split = prepare_data(config, run.catalog if config.resume else None)
                require_same_items(config, run, interactions)
                logger.info("%s", data_summary(interactions, split, config.split))
                asked, config = config, resolved(config, split)
                popularity = in_thread(partial(popularity_metrics, config, split), "rank by popularity")
                side = side_information(config, interactions)
            require_memory(
                config, split.num_items, memory(), lends_host=False, on_cpu=is_cpu(), num_features=side.num_features
            )
            require_shareable(config, split.num_items, config.devices)
        if processes.number > 1:
            alike = replace(config, device="auto", data="-", out="-"), stay_on_device(config, split, memory())
            processes.require_alike(f"{alike} {Fingerprint.of(split)}")
        with profile.part("model"), processes.together():
            model_config = ModelConfig.from_train(config, split.num_items, side.num_features)
            dtype = DTYPES[config.precision]
            if mesh is None or item_rule(config, split.num_items) is None:
                model = build_model(model_config, rngs=nnx.Rngs(config.seed), dtype=dtype)
            else:
                model = build_sharded_model(model_config, mesh, seed=config.seed, dtype=dtype)
            model.start_items(side)
            if config.init_weights is not None:
                load_weights(model, config.init_weights)
                side.require_same(config.init_weights, "init_weights")
            start = None if earlier is None else earlier.start(config, interactions, split.train, side)
            if start is not None:
                start_weights(model, start)
            if config.resume and run.best_weights.exists():
                side.require_same(run.best_weights, "resume")
            trainer = Trainer(model, config, split, mesh, processes)
            if start is not None:
                trainer.start_from(start)
        claim = claim_run(run, config, interactions, split, side.columns, left_names(asked, config))
        with processes.left_together(), contextlib.ExitStack() as claimed:
            with processes.together():
                if processes.is_first:
                    claimed.enter_context(claim)
            processes.require_one_folder(run.config)
            progress = trainer.restore(run)
            steps = num_batches(split.train, batch_size=config.batch_size)
            recorder = Recorder(run, config, progress, steps, popularity, writes=processes.is_first)

            def test() -> dict[str, float]:
                trainer.release()
                processes.wait()  # until the first one has written them
                if processes.is_first or trainer.steps.is_sharded:
                    load_weights(model, run.best_weights)
                return trainer.test(model)

            with told.of_run(config, progress):
                metrics = run_epochs(trainer, config, progress, recorder, profile, test, told)
    result = recorder.result(metrics)
    return finish_run(run, result, profile if config.profile else None, told) if processes.is_first else result


if __name__ == "__main__":
    from .cli import main

    main()
