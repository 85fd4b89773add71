"""The same order of items for everybody: by all training events, or by those of the last days."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.interactions import Interactions
from ..data.ragged import Ragged
from ..errors import ConfigError
from ..protocol.popularity import PopularityBaseline
from ..protocol.splits import Split

DAYS = 7
"""The last days that `recent` counts, unless it is told otherwise."""

_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_YEARS = (10**8, 41 * 10**8)
"""Seconds since 1970 of the years 1973 and 2099."""


class Popular:
    """Ranks by popularity, most events first, as `PopularityBaseline` does."""

    def __init__(self, train: Ragged, num_items: int) -> None:
        self._popularity = PopularityBaseline(train, num_items)

    def ranks(
        self, histories: Ragged, targets: npt.NDArray[np.integer], *, filter_seen: bool = False
    ) -> npt.NDArray[np.int64]:
        """As `Baseline.ranks`; no score is made."""
        return self._popularity.ranks(targets, histories if filter_seen else None)


def recent(interactions: Interactions, split: Split, days: int = DAYS) -> Popular:
    """Popularity of the training events of the last ``days`` days: later than ``last time - days``, where the last time
    is that of the last training event.

    Numbers are taken as seconds, milliseconds, microseconds or nanoseconds since 1970, by which of them all lie between
    1973 and 2099. Raises ``ConfigError`` for other numbers, such as places in a history, which have no days.
    """
    assert split.in_train is not None
    time = interactions.time[split.in_train]
    day = _DAY[interactions.time_unit or _unit(time)]
    is_recent = time > time.max() - days * day
    return Popular(_one_row(split.train.values[is_recent]), split.num_items)


def _unit(time: npt.NDArray[np.int64]) -> str:
    first, last = int(time.min()), int(time.max())
    for unit, day in _DAY.items():
        if _YEARS[0] * day <= first * _DAY["s"] and last * _DAY["s"] <= _YEARS[1] * day:
            return unit
    raise ConfigError(
        f"baselines: recent expected times since 1970, of which it can tell days, got numbers from {first} to {last}; "
        "leave it out for this log"
    )


def _one_row(items: npt.NDArray[np.int32]) -> Ragged:
    return Ragged(items, np.array([0, len(items)], dtype=np.int64))
