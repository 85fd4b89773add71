"""The losses of an epoch's steps, which stay on the device while it works, and what ends a training that diverges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import DivergedError

FETCH_EVERY = 1000
"""Steps after which losses are looked at before the epoch's end: a diverged epoch may last hours, and waiting once in
so many steps for the device costs little."""

_ADVICE = "a lower learning_rate or more warmup_steps may help; what earlier epochs wrote is kept"

Losses = TypeVar("Losses")

Fetch = Callable[[list[Losses]], Callable[[], npt.NDArray[np.floating]]]


class EpochLosses(Generic[Losses]):
    """Losses of the steps of ``epoch``, the first of which is step ``first_step`` of the run (both from 0).

    ``fetch(portions)`` starts to copy what was added to the host, and returns what waits for it: (n,) numbers, one
    portion after the other. Raises ``DivergedError`` that names the first step whose loss is not finite, from `add` or
    from what `mean` returns.
    """

    def __init__(self, epoch: int, first_step: int, fetch: Fetch[Losses]) -> None:
        self._epoch, self._first_step, self._fetch = epoch, first_step, fetch
        self._waiting: list[Losses] = []
        self._num_waiting = 0
        self._fetched: list[npt.NDArray[np.floating]] = []

    def add(self, losses: Losses, count: int) -> None:
        """Takes the losses (count,) of the next steps, an array on the device."""
        self._waiting.append(losses)
        self._num_waiting += count
        if self._num_waiting >= FETCH_EVERY:
            self._start()()

    def mean(self) -> Callable[[], float]:
        """What waits for the mean over all steps so far; the device may get other work first."""
        take = self._start()

        def wait() -> float:
            take()
            return float(np.concatenate(self._fetched).mean())

        return wait

    def _start(self) -> Callable[[], None]:
        """Has what waits copied to the host, and returns what takes it there."""
        if not self._waiting:
            return lambda: None
        fetched = self._fetch(self._waiting)
        self._waiting, self._num_waiting = [], 0
        return lambda: self._take(fetched())

    def _take(self, values: npt.NDArray[np.floating]) -> None:
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            step = sum(map(len, self._fetched)) + int(bad[0])
            raise DivergedError(
                f"loss: expected a finite number, got {values[bad[0]]} in epoch {self._epoch}, step {step} (step "
                f"{self._first_step + step} of the run; all from 0); {_ADVICE}"
            )
        self._fetched.append(values)


def require_finite_weights(largest: float, epoch: int) -> None:
    """Raises ``DivergedError`` unless ``largest``, the largest magnitude of a model's weights after ``epoch``, is
    finite: the last step may have moved rows that no loss of the epoch has seen."""
    if not np.isfinite(largest):
        raise DivergedError(f"weights: expected finite numbers after epoch {epoch} (from 0), got {largest}; {_ADVICE}")
