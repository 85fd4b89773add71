"""The steps of an epoch, portion by portion, the same for both frameworks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

from tqdm import tqdm

from ..protocol.batches import num_batches
from ..protocol.splits import Split
from .background import in_thread, prefetched
from .config import TrainConfig
from .experiment import blocks_of_epoch
from .losses import EpochLosses, Fetch, Losses
from .profile import Profile
from .steps import Steps, epoch_steps


@dataclass
class StepLoop(Generic[Losses]):
    """Trains by `epoch_steps` of ``config`` and ``split``, of at most about ``most`` batches, gathered ``on_device``.

    ``train(steps)`` trains and returns the losses, ``fetch(portions)`` what waits for those of several portions on the
    host (`EpochLosses`). Of a run that is profiled, the first portion that nothing is compiled for is done within
    ``trace()``: the first of each length compiles. Rates have no warm-up once the optimizer ``is_warm``. Progress
    ``is_shown`` on a terminal.
    """

    config: TrainConfig
    split: Split
    train: Callable[[Steps], Losses]
    fetch: Fetch[Losses]
    trace: Callable[[], contextlib.AbstractContextManager[object]]
    on_device: bool
    most: int
    is_warm: bool = False
    is_shown: bool = True
    _compiled: set[int] = field(default_factory=set)
    _is_traced: bool = False
    _ahead: tuple[int, Future[Steps], Iterator[Steps]] | None = None

    def epoch(self, epoch: int, profile: Profile) -> Callable[[], float]:
        """Trains one epoch and returns what waits for the mean of its losses; both raise ``DivergedError``."""
        total = num_batches(self.split.train, batch_size=self.config.batch_size)
        losses = EpochLosses(epoch, epoch * total, self.fetch)
        portions = prefetched(self._steps(epoch))
        # disable=None: no bar where the output is no terminal.
        bar = tqdm(desc=f"epoch {epoch}", total=total, leave=False, disable=None if self.is_shown else True)
        with bar, contextlib.closing(portions), profile.part("steps"):
            for steps in profile.waits(portions, "waiting for batches"):
                is_compiled = steps.length in self._compiled
                to_trace = self.config.profile and is_compiled and not self._is_traced
                self._is_traced |= to_trace
                traced = self.trace() if to_trace else contextlib.nullcontext()
                with profile.part("steps" if is_compiled else "first steps"), traced:
                    losses.add(self.train(steps), steps.num_batches)
                self._compiled.add(steps.length)
                bar.update(steps.num_batches)
            if epoch + 1 < self.config.epochs:
                self._begin(epoch + 1)
            mean = losses.mean()

        def wait() -> float:
            with profile.part("steps"):
                return mean()

        return wait

    def forms(self) -> Iterator[Steps]:
        """Portions of the first epoch, one of each length of rows that there is."""
        left = {block.length for block in blocks_of_epoch(self.config, self.split, 0)}
        for steps in self._made(0):
            if steps.length in left:
                yield steps
                left.remove(steps.length)
            if not left:
                return

    def _steps(self, epoch: int) -> Iterator[Steps]:
        begun, self._ahead = self._ahead, None
        if begun is None or begun[0] != epoch:
            yield from self._made(epoch)
        else:
            yield begun[1].result()
            yield from begun[2]

    def _begin(self, epoch: int) -> None:
        """Makes an epoch's first portion while the device has other work."""
        steps = self._made(epoch)
        self._ahead = epoch, in_thread(partial(next, steps), "first batches"), steps

    def _made(self, epoch: int) -> Iterator[Steps]:
        options = {"on_device": self.on_device, "most": self.most, "is_warm": self.is_warm}
        return epoch_steps(self.config, self.split, epoch, **options)
