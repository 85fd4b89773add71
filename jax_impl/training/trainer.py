"""The training of a run: its epochs, their validation and the copies that are written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

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
from ...recsys.serving.evaluation import HeldOut
from ..devices import memory
from ..loss.arguments import check_impl
from ..models.parts import Parts
from ..models.sequence_model import SequenceModel
from ..models.weights import largest_weight, save_weights
from ..processes import Processes
from ..ranks import on_mesh
from ..serving.evaluate import Ranker, compile_ahead, start_evaluation_on
from ..serving.spread import Spread
from ..stored import is_sharded
from .objective import objective_of, start_frequencies, step_seed, training_loss
from .state import Copy, restore, start_optimizer
from .steps import TrainingSteps

_ON_A_CPU = 8  # batches of a portion: its steps take long, and a portion shows progress at its end


class Trainer:
    """Trains ``model`` on ``split`` as ``config`` says; the loop around it is ``recsys.run.training_loop``'s.

    Batches, draws and dropout follow from (seed, epoch, step), so that a resumed run repeats an uninterrupted one. The
    devices of a ``mesh`` may be those of several ``processes``.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: TrainConfig,
        split: Split,
        mesh: Mesh | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.split, self._processes = config, split, processes or Processes()
        self._objective = objective_of(config, split)
        frequencies = start_frequencies(self._objective, split)
        rule = item_rule(config, split.num_items)
        with options_refused(ArgumentError):
            check_impl(self._objective.impl, model.item_table[...])  # a traced array knows no device
        if mesh is None or rule is None:
            self._try_loss(model, frequencies)
        on_device = stay_on_device(config, split, memory())
        self.steps = TrainingSteps(
            model,
            config,
            self._objective,
            frequencies=frequencies,
            sequences=split.train if on_device else None,
            item_rule=rule,
            weighing_targets=weighing_targets(config, split),
            mesh=mesh,
        )
        if self.steps.is_sharded:
            with options_refused(ArgumentError):  # as `_try_loss`, of which a loss on shards is no part
                self.steps.trace(Steps.of_batch(longest_batch(config, split), 0, config))
        self._spread = None if mesh is None else Spread(mesh, self.steps.is_sharded)
        self._evaluation = evaluation_options(config, split)
        sizes = {name: self._evaluation.pop(name) for name in ("filter_seen", "batch_size")}
        self._valid, self._test = (
            HeldOut(*held_out(config, split, part), max_length=config.max_length, **sizes) for part in ("valid", "test")
        )
        parts = self.steps.parts().shapes()
        self._ranker = Ranker(parts, split.num_items, keeps=self._valid.is_small, spread=self._spread)
        most = MOST_BATCHES if jax.default_backend() == "gpu" else _ON_A_CPU
        self._loop = StepLoop(
            config, split, self._train, _fetch, self._traced, on_device, most, is_shown=self._processes.is_first
        )

    def _try_loss(self, model: SequenceModel, frequencies: Array | None) -> None:
        """Traces the loss of one of the longest batches, so that what only the loss refuses is a ``ConfigError`` before
        a run claims its folder."""
        batch = longest_batch(self.config, self.split)
        operands = model, batch.inputs, batch.targets, step_seed(self.config, 0)
        with options_refused(ArgumentError):
            nnx.eval_shape(partial(training_loss, objective=self._objective), *operands, frequencies=frequencies)

    def start_from(self, start: WarmStart) -> None:
        """Takes up the optimizer's state of an earlier run, where it fits; it is warm then."""
        self._loop.is_warm = start_optimizer(self.steps, start)

    def restore(self, run: RunDirectory) -> Progress:
        """Takes up the last checkpoint of ``run``, if it has one. Raises ``ConfigError``."""
        with self._processes.together():
            progress = restore(self.steps, run)
        if self._processes.number > 1:
            self._processes.require_alike(f"a checkpoint of {progress.epochs} epochs")
            self._take_from_first()
        progress.is_warm = self._loop.is_warm = progress.is_warm or self._loop.is_warm
        return progress

    def _take_from_first(self) -> None:
        """What all devices have is the first process's to the bit, whatever else computed it."""
        arrays, tree = jax.tree.flatten(self.steps.state)
        places = [place for place, array in enumerate(arrays) if not is_sharded(array)]
        for place, array in zip(places, self._processes.take_from_first([arrays[p] for p in places]), strict=True):
            if array is not arrays[place]:
                arrays[place].delete()  # else the model's first weights stay with it
            arrays[place] = array
        self.steps.state = jax.tree.unflatten(tree, arrays)

    def compile_ahead(self) -> None:
        if jax.default_backend() != "gpu":  # where it takes seconds, and so do the steps
            return
        for steps in self._loop.forms():
            self.steps.compile_ahead(steps)
        if self.config.has_test:
            first = self._valid if self.config.has_validation else self._test
            cutoffs, shapes = self._evaluation["cutoffs"], self.steps.parts().shapes()
            self._ranker.ahead = compile_ahead(shapes, self.split.num_items, first, cutoffs, self._spread)

    def train_epoch(self, epoch: int, profile: Profile) -> Callable[[], float]:
        return self._loop.epoch(epoch, profile)

    def _train(self, steps: Steps) -> tuple[Array, int]:
        return self.steps(steps), steps.num_batches

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Writes a trace of what is done inside, the first process's."""
        if not self._processes.is_first:
            yield
            return
        folder = RunDirectory(Path(self.config.out), "jax").trace
        with usable("out", WRITABLE):
            folder.mkdir(exist_ok=True)
        with jax.profiler.trace(folder):
            yield
            jax.block_until_ready(self.steps.state)

    def largest_weight(self) -> Array:
        return largest_weight(self.steps.kept_state().parameters)

    def validate(self) -> Callable[[], dict[str, float]]:
        self._ranker.parts = self.steps.parts()
        return start_evaluation_on(self._valid, self._ranker, **self._evaluation)

    def test(self, model: SequenceModel) -> dict[str, float]:
        """Metrics of the test part, of another ``model`` of the same shapes; see `release`. Where each device has all
        of it, it is the first process's."""
        graph, *arrays = Parts.of(model)
        if not self.steps.is_sharded:
            arrays = self._processes.take_from_first(arrays)
        if self._spread is not None:
            arrays = on_mesh(arrays, self._spread.mesh, is_sharded=self._spread.is_sharded)
        parts = Parts(graph, *arrays)
        ranker = Ranker(parts, self.split.num_items, ahead=self._ranker.ahead, spread=self._spread)
        return start_evaluation_on(self._test, ranker, **self._evaluation)()

    def release(self) -> None:
        """Lets go of the weights, so that others have room on the device; there are no steps afterwards."""
        self._ranker.parts = self._ranker.parts.shapes()
        self.steps.release()

    def snapshot(self) -> Snapshot:
        writes = self._processes.is_first
        copy = Copy(self.steps.kept_state(), self.steps.num_items, writes=writes)

        def write(path: Path) -> None:
            if writes or self.steps.is_sharded:
                save_weights(self.steps.parts(copy.state()).model(), path, writes=writes)

        return Snapshot(write, copy.tensors, copy.is_live)


def _fetch(portions: list[tuple[Array, int]]) -> Callable[[], np.ndarray]:
    for losses, _ in portions:
        losses.copy_to_host_async()
    return lambda: np.concatenate([np.asarray(losses).reshape(-1)[:count] for losses, count in portions])
