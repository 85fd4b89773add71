"""Training a sequence model with PyTorch and Lightning Fabric."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from tqdm.contrib.logging import logging_redirect_tqdm

from ..kernels import fold_seed
from ..recsys import DivergedError, TrainConfig, num_batches, prepare_data
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
from ..recsys.run.run_directory import RunDirectory, claim_run, find_run
from ..recsys.run.side_information import side_information
from ..recsys.run.steps import stay_on_device
from ..recsys.run.training_loop import run_epochs
from ..recsys.run.warm_start import EarlierRun, require_same_items
from .devices import device_of, enough_memory, memory, start_ahead
from .models import build_model
from .models.weights import load_weights, start_weights
from .ranks import Ranks, joined
from .training.launcher import fabric_of
from .training.trainer import Trainer

logger = logging.getLogger(__name__)


def train(config: TrainConfig, *, callbacks: Sequence[Callback] = ()) -> TrainResult:
    """Trains the model as ``config`` says and tests the weights of the epoch with the best validation NDCG@10.

    With ``train_on_valid`` there is no validation, and the last epoch's weights are tested; with ``split = none`` there
    is no test either. ``from_run`` starts from the weights of an earlier run, and from its optimizer's state where that
    fits.

    Writes to ``config.out``: config.json, catalog.parquet, data.json, metrics.csv (a row an epoch), best.safetensors,
    result.json, learning_curve.png and, after every epoch, torch-checkpoints/last.safetensors, from which ``resume``
    continues. Batches, negatives and dropout follow from (seed, epoch, step), so a killed and resumed run ends with the
    result of an uninterrupted one (on CUDA up to the rounding of PyTorch's own kernels, unless ``deterministic``).

    With ``devices`` it does so in as many processes, or in those that torchrun has started: each takes its part of
    every batch and has its own draws, gradients are added up, and the first one writes. Where the item table moves by
    rows each has its part of it, and draws from that. Processes that torchrun starts again go on from the checkpoint.

    Each of ``callbacks`` is told the run's events (`recsys.run.events`), after the loggers of ``log_to``: by the first
    process alone, to which ``devices`` sends them pickled.

    Raises ``DataError`` for unusable data and ``ConfigError`` for unusable options, initial weights or folder, before
    the first step and with no folder left behind, and ``DivergedError`` once the loss or the weights are not finite:
    the folder keeps the best weights and the checkpoint of earlier epochs. A process that ends by itself is named by a
    ``RankError``, after the others have been ended.
    """
    if config.devices > 1 and not dist.is_torchelastic_launched():
        from .training.processes import train_in_processes

        return train_in_processes(train, config, callbacks)
    with joined(config) as ranks:
        return _train(config, ranks, callbacks)


@enough_memory()
def _train(config: TrainConfig, ranks: Ranks, callbacks: Sequence[Callback]) -> TrainResult:
    """As one of the ``ranks``."""
    profile = Profile()
    import_ahead("lightning_fabric")  # which brings PyTorch's compiler
    device = device_of(config.device, ranks.local)
    start_ahead(device)
    if ranks.have_begun(RunDirectory.of(config.out, "torch")):
        config = replace(config, resume=True)
    run = find_run(config, "torch")
    told = Callbacks(run, config, callbacks, tells=ranks.is_first, agree=partial(ranks.any, device=device))
    earlier = EarlierRun.of(config, run)
    with profile.part("load"):
        interactions, split = prepare_data(config, run.catalog if config.resume else None)
        require_same_items(config, run, interactions)
        logger.info("%s", data_summary(interactions, split, config.split))
        asked, config = config, resolved(config, split)
        popularity = in_thread(partial(popularity_metrics, config, split), "rank by popularity")
        side = side_information(config, interactions)
    if ranks.number > 1:
        require_shareable(config, split.num_items, ranks.number)
        alike = replace(config, device="auto", data="-", out="-"), stay_on_device(config, split, memory(device))
        ranks.require_alike(f"{alike} {Fingerprint.of(split)}")
    of_all = replace(config, devices=ranks.number)
    require_memory(
        of_all, split.num_items, memory(device), lends_host=ranks.number == 1, on_cpu=device.type == "cpu",
        num_features=side.num_features,
    )  # fmt: skip
    # Seeding is this run's business: the caller's generators continue as if nothing had been drawn.
    with torch.random.fork_rng(_drawing(device)), _deterministic(config.deterministic), logging_redirect_tqdm():
        with profile.part("model"):
            by_rows = item_rule(config, split.num_items) is not None
            shard = ranks.shard(split.num_items) if by_rows else None
            torch.manual_seed(config.seed if shard is None else fold_seed(config.seed, shard.index))
            # a large table is nowhere else
            with device if by_rows else contextlib.nullcontext():
                model_config = ModelConfig.from_train(config, split.num_items, side.num_features)
                model = build_model(model_config, host_table=config.table_on == "host", shard=shard)
            model.start_items(side)
            if config.init_weights is not None:
                load_weights(model, config.init_weights)
                side.require_same(config.init_weights, "init_weights")
            start = None if earlier is None else earlier.start(config, interactions, split.train, side)
            if start is not None:
                start_weights(model, start)
            if config.resume and run.best_weights.exists():
                side.require_same(run.best_weights, "resume")
            trainer = Trainer(model.to(device), config, split, fabric_of(config, device), ranks=ranks)
            if start is not None:
                trainer.start_from(start)
            trainer.try_loss()
        claim = claim_run(run, config, interactions, split, side.columns, left_names(asked, config))
        with _left_together(ranks), claim if ranks.is_first else contextlib.nullcontext():
            if ranks.is_first and ranks.job:
                run.job.write_text(ranks.job)
            progress = trainer.restore(run)
            steps = num_batches(split.train, batch_size=config.batch_size)
            recorder = Recorder(run, config, progress, steps, popularity, writes=ranks.is_first)

            def test() -> dict[str, float]:
                ranks.wait()  # until the first one has written them
                if ranks.is_first or shard is not None:
                    load_weights(model, run.best_weights)
                if shard is None:  # perhaps no other reads where it has written
                    ranks.take_from_first(parameter.detach() for parameter in model.parameters())
                return trainer.test()

            try:
                with told.of_run(config, progress):
                    metrics = run_epochs(trainer, config, progress, recorder, profile, test, told)
            finally:
                if ranks.number > 1:
                    trainer.steps.release()
    result = recorder.result(metrics)
    return finish_run(run, result, profile if config.profile else None, told) if ranks.is_first else result


@contextlib.contextmanager
def _left_together(ranks: Ranks) -> Iterator[None]:
    """A training that diverges does so on all ranks, which leave once the first one has written what was before: a
    process that ends ends all."""
    try:
        yield
    except DivergedError:
        ranks.wait()
        raise


def _drawing(device: torch.device) -> list[int]:
    """The GPU whose generator a run seeds beside the CPU's, if any."""
    return [device.index or 0] if device.type == "cuda" else []


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """PyTorch's own kernels by deterministic algorithms, if ``wanted``, and its settings as they were afterwards."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which they ask for
    settings: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it finds mistakes, and costs a pass over every result
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled


if __name__ == "__main__":
    from .cli import main

    main()
