"""What a run is about to train on, in a few lines for a terminal."""

from __future__ import annotations

import numpy as np

from ..data.interactions import Interactions
from ..protocol.splits import Split

_PERCENTILES = (50, 90)


def data_summary(interactions: Interactions, split: Split, protocol: str) -> str:
    """Events, users and items; how many events users have, percentiles by linear interpolation; from when to when; and
    how many users a run trains on, validates and tests; and, where the ``protocol`` (`SPLITS`) trains on what came
    after the events that it tests, how much of it."""
    lengths = np.diff(interactions.offsets)
    median, most = (f"{value:g}" for value in np.percentile(lengths, _PERCENTILES).round())
    first, last = (
        _time(int(time), interactions.time_unit) for time in (interactions.time.min(), interactions.time.max())
    )
    lines = [
        f"data: {_many(len(interactions.item), 'event')} of {_many(interactions.num_users, 'user')} among "
        f"{_many(interactions.num_items, 'item')}",
        f"  events a user: {lengths.min()} to {lengths.max()}, half at most {median}, nine in ten at most {most}",
        f"  from {first} to {last}",
        f"  {_many(len(split.train.lengths), 'user')} to train on, {len(split.valid_target)} to validate, "
        f"{len(split.test_target)} to test",
    ]
    if repeated := _repeated(interactions):
        lines.append(f"  {_many(repeated, 'event')} repeat another's user, item and time (drop_duplicates)")
    share = _later(interactions) if protocol == "leave-one-out" else 0
    if share >= _MANY:
        lines += [
            f"  {share:.0%} of the training events happened after the median tested one: with",
            "  leave-one-out a model knows the future, with --split global-temporal not",
        ]
    return "\n".join(lines)


_MANY = 0.01


def _repeated(interactions: Interactions) -> int:
    """Events are in order of user and time: those of a pair are side by side, in any order of items."""
    user, time, item = interactions.user, interactions.time, interactions.item
    is_tied = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    tied = np.flatnonzero(np.append(is_tied, False) | np.append(False, is_tied))
    order = tied[np.lexsort((item[tied], time[tied], user[tied]))]
    before, after = order[:-1], order[1:]
    same = (user[before] == user[after]) & (time[before] == time[after]) & (item[before] == item[after])
    return int(same.sum())


def _later(interactions: Interactions) -> float:
    """The share of leave-one-out's training events that are later than the median of its tested ones."""
    lengths, last = np.diff(interactions.offsets), interactions.offsets[1:] - 1
    is_held_out = np.zeros(len(interactions.time), np.bool_)
    tested = last[lengths >= 3]
    is_held_out[tested] = is_held_out[tested - 1] = True
    if is_held_out.all() or not len(tested):
        return 0.0
    return float((interactions.time[~is_held_out] > np.median(interactions.time[tested])).mean())


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _time(time: int, unit: str | None) -> str:
    if unit is None:
        return f"time {time}"
    return str(np.array(time).astype(f"datetime64[{unit}]").astype("datetime64[s]")).replace("T", " ")
