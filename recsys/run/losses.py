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


class EpochLosses(Generic[Losses]):
    """Losses of the steps of ``epoch``, the first of which is step ``first_step`` of the run (both from 0).

    ``fetch(portions)`` waits for the device and returns what was added, one portion after the other, as (n,) numbers.
    Raises ``DivergedError`` that names the first step whose loss is not finite, from `add` or `mean`.
    """

    def __init__(self, epoch: int, first_step: int, fetch: Callable[[list[Losses]], npt.NDArray]) -> None:
        self._epoch, self._first_step, self._fetch = epoch, first_step, fetch
        self._waiting: list[Losses] = []
        self._num_waiting = 0
        self._fetched: list[npt.NDArray[np.floating]] = []

    def add(self, losses: Losses, count: int) -> None:
        """Takes the losses (count,) of the next steps, an array on the device."""
        self._waiting.append(losses)
        self._num_waiting += count
        if self._num_waiting >= FETCH_EVERY:
            self._take()

    def mean(self) -> float:
        """The mean over all steps so far."""
        self._take()
        return float(np.concatenate(self._fetched).mean())

    def _take(self) -> None:
        if not self._waiting:
            return
        values = self._fetch(self._waiting)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            step = sum(map(len, self._fetched)) + int(bad[0])
            raise DivergedError(
                f"loss: expected a finite number, got {values[bad[0]]} in epoch {self._epoch}, step {step} (step "
                f"{self._first_step + step} of the run; all from 0); {_ADVICE}"
            )
        self._fetched.append(values)
        self._waiting, self._num_waiting = [], 0


def require_finite_weights(largest: float, epoch: int) -> None:
    """Raises ``DivergedError`` unless ``largest``, the largest magnitude of a model's weights after ``epoch``, is
    finite: the last step may have moved rows that no loss of the epoch has seen."""
    if not np.isfinite(largest):
        raise DivergedError(f"weights: expected finite numbers after epoch {epoch} (from 0), got {largest}; {_ADVICE}")
