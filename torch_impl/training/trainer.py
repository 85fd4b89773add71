"""The training of a run: its epochs, their validation and the copies that are written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...kernels import ArgumentError
from ...recsys import Split, TrainConfig, evaluation_options
from ...recsys.files import usable
from ...recsys.option_checks import options_refused
from ...recsys.run.epoch import StepLoop
from ...recsys.run.experiment import held_out, longest_batch, weighing_targets
from ...recsys.run.item_optimizer import item_rule
from ...recsys.run.profile import Profile
from ...recsys.run.progress import Progress
from ...recsys.run.recorder import Snapshot
from ...recsys.run.run_directory import WRITABLE, RunDirectory
from ...recsys.run.steps import MOST_BATCHES, Steps, stay_on_device
from ...recsys.run.warm_start import WarmStart
from ...recsys.run.weights_file import write_weights
from ...recsys.serving.evaluation import HeldOut
from ..devices import memory
from ..models.sequence_model import SequenceModel
from ..models.weights import largest_weight
from ..ranks import Ranks
from ..serving.evaluate import Ranker, start_evaluation_on
from ..serving.sharded_ranking import ShardRanker
from .objective import Loss, objective_of, start_frequencies, step_seed, training_loss
from .state import Copy, restore, shard_of, shared_snapshot, start_optimizer, tensors_of
from .steps import TrainingSteps

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Trainer:
    """Trains ``model`` on ``split`` as ``config`` says; the loop around it is ``recsys.run.training_loop``'s.

    ``fabric`` is `launcher.fabric_of` (config, the model's device). Batches, draws and dropout follow from (seed,
    epoch, step), so that a resumed run repeats an uninterrupted one. ``loss`` is by default the objective's.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: TrainConfig,
        split: Split,
        fabric: Fabric,
        *,
        loss: Loss = training_loss,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.config, self.split, self._fabric = model, config, split, fabric
        self._ranks = ranks or Ranks()
        self._objective = objective_of(replace(config, devices=self._ranks.number), split)
        device = model.item_table.device
        frequencies = start_frequencies(self._objective, split)
        on_device = stay_on_device(config, split, memory(device))
        self.steps = TrainingSteps(
            model,
            config,
            self._objective,
            fabric.autocast,
            frequencies=None if frequencies is None else frequencies.to(device),
            sequences=split.train if on_device else None,
            loss=loss,
            item_rule=item_rule(config, split.num_items),
            weighing_targets=weighing_targets(config, split),
            ranks=self._ranks,
        )
        self._evaluation = evaluation_options(config, split)
        sizes = {name: self._evaluation.pop(name) for name in ("filter_seen", "batch_size")}
        self._valid, self._test = (
            HeldOut(*held_out(config, split, part), max_length=config.max_length, **sizes) for part in ("valid", "test")
        )
        self._constants = {name: buffer.cpu().numpy() for name, buffer in model.named_buffers()}
        self._ranker = (
            Ranker(model, captures=True, ranks=self._ranks)
            if model.shard is None
            else ShardRanker(model, model.shard, self._ranks)
        )
        self._loop = StepLoop(
            config, split, self.steps, _fetch, self._traced, on_device, MOST_BATCHES, is_shown=self._ranks.is_first
        )

    @torch.no_grad()
    def try_loss(self) -> None:
        """Computes the loss of one of the longest batches, so that what only the loss refuses is a ``ConfigError``
        before a run claims its folder. Draws from torch's generator."""
        steps = Steps.of_batch(longest_batch(self.config, self.split), 0, self.config)
        steps = steps.of_rank(self._ranks.index, self._ranks.number)
        assert steps.inputs is not None and steps.targets is not None  # noqa: PT018
        inputs, targets = (torch.from_numpy(ids[0, 0]).to(self.steps.device) for ids in (steps.inputs, steps.targets))
        with options_refused(ArgumentError), self._fabric.autocast():
            self.steps.loss_of(inputs, targets, step_seed(self.config, 0), self.steps.frequencies)

    def start_from(self, start: WarmStart) -> None:
        """Takes up the optimizer's state of an earlier run, where it fits; it is warm then."""
        self._loop.is_warm = start_optimizer(self.steps, start)

    def restore(self, run: RunDirectory) -> Progress:
        """Takes up the last checkpoint of ``run``, if it has one. Raises ``ConfigError``."""
        progress = restore(self.steps, run)
        if self._ranks.number > 1:
            self._ranks.require_alike(f"a checkpoint of {progress.epochs} epochs")
        tensors = tensors_of(self.steps)
        self._ranks.take_from_first(each for name, each in tensors.items() if shard_of(self.steps, name) is None)
        progress.is_warm = self._loop.is_warm = progress.is_warm or self._loop.is_warm
        return progress

    def compile_ahead(self) -> None:
        if self.config.has_test:
            first = self._valid if self.config.has_validation else self._test
            self._ranker.compile_ahead(first, self._evaluation["cutoffs"])

    def train_epoch(self, epoch: int, profile: Profile) -> Callable[[], float]:
        return self._loop.epoch(epoch, profile)

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Writes a trace of what is done inside, the first rank's."""
        if not self._ranks.is_first:
            yield
            return
        with torch.profiler.profile() as trace:
            yield
            if self.model.item_table.is_cuda:
                torch.cuda.synchronize()
        folder = RunDirectory(Path(self.config.out), "torch").trace
        with usable("out", WRITABLE):
            folder.mkdir(exist_ok=True)
            trace.export_chrome_trace(str(folder / "torch.json.gz"))

    def largest_weight(self) -> Tensor:
        return self._ranks.largest(largest_weight(self.model))

    def validate(self) -> Callable[[], dict[str, float]]:
        with self._averaged(), self._fabric.autocast():
            return start_evaluation_on(self._valid, self._ranker, **self._evaluation)

    def test(self) -> dict[str, float]:
        """Metrics of the test part, of the model's weights as they are now."""
        with self._fabric.autocast():
            return start_evaluation_on(self._test, self._ranker, **self._evaluation)()

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the average weights, if there are any, in the memory of its own."""
        if not self.steps.averages:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in self.steps.parameters.items()}
        self._take(self.steps.averages)
        try:
            yield
        finally:
            self._take(own)

    @torch.no_grad()
    def _take(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.steps.parameters.items():
            parameter.copy_(weights[name])

    def snapshot(self) -> Snapshot:
        if self.model.shard is not None:
            return shared_snapshot(self.steps, self._ranks)
        if not self._ranks.is_first:
            return Snapshot(lambda path: None, dict)
        copy, config = Copy(tensors_of(self.steps)), self.model.config
        kept = "average/" if self.steps.averages else "model/"

        def write(path: Path) -> None:
            weights = {name.removeprefix(kept): t for name, t in copy.tensors().items() if name.startswith(kept)}
            write_weights(path, config, weights | self._constants)

        return Snapshot(write, copy.tensors, copy.is_live)


def _fetch(portions: list[Tensor]) -> Callable[[], np.ndarray]:
    losses = torch.cat(portions)
    if not losses.is_cuda:
        return losses.numpy
    held, copied = torch.empty(losses.shape, pin_memory=True), torch.cuda.Event()
    held.copy_(losses, non_blocking=True)
    copied.record()  # the device may have other work by the time that someone waits

    def wait() -> np.ndarray:
        copied.synchronize()
        return held.numpy()

    return wait
