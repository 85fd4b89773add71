"""Train, validation and test parts of a set of interactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.interactions import Interactions
from ..data.ragged import Ragged, offsets_of, take_ranges
from ..errors import ConfigError, DataError
from .list_metrics import self_information

Items = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Split:
    """What to train on and what to predict.

    ``train`` has one row of items for each training user; row ``i`` of ``valid_history`` is followed by
    ``valid_target[i]`` (int32), and likewise for test. Items are dense ids below ``num_items``. ``in_train`` (n,) tells
    of the events that were split which ones ``train.values`` are, in their order; None where nothing was split.
    """

    train: Ragged
    valid_history: Ragged
    valid_target: Items
    test_history: Ragged
    test_target: Items
    num_items: int
    in_train: npt.NDArray[np.bool_] | None = None

    @cached_property
    def information(self) -> npt.NDArray[np.float64]:
        """`self_information` (V,) of the training rows, for the metric Surprisal."""
        return self_information(self.train, self.num_items)


def leave_one_out(interactions: Interactions, *, train_on_valid: bool = False) -> Split:
    """Hold out each user's last item for test and the one before it for validation.

    Users with fewer than three items are trained on whole and never evaluated. The test history is everything
    before the test item, the validation item included. ``train_on_valid`` leaves the validation items in the
    training rows and the validation part empty. Raises `DataError` if another part comes out empty.
    """
    starts, stops = interactions.offsets[:-1], interactions.offsets[1:]
    evaluated = stops - starts >= 3
    train_stops = np.where(evaluated, stops - (1 if train_on_valid else 2), stops)
    first, last = starts[evaluated], stops[evaluated]
    valid_first, valid_last = (first[:0], last[:0]) if train_on_valid else (first, last)
    item = interactions.item
    in_train = np.ones(len(item), dtype=bool)
    in_train[last - 1] = False
    if not train_on_valid:
        in_train[last - 2] = False
    split = Split(
        train=take_ranges(item, starts, train_stops),
        valid_history=take_ranges(item, valid_first, valid_last - 2),
        valid_target=item[valid_last - 2],
        test_history=take_ranges(item, first, last - 1),
        test_target=item[last - 1],
        num_items=interactions.num_items,
        in_train=in_train,
    )
    name = "leave-one-out (it needs users with at least 3 interactions)"
    return _require_parts(split, interactions, name, validated=not train_on_valid)


def global_temporal(
    interactions: Interactions,
    *,
    quantile: float = 0.9,
    valid_fraction: float = 0.05,
    seed: int = 0,
    train_on_valid: bool = False,
) -> Split:
    """Train on the past and test on the future of one moment that is the same for all users.

    1. The cutoff is the time of event number ``floor(quantile * n)`` (from 0) of all n events in order of
       time. Events strictly before it are the past, the others the future: nothing trained on happens after a
       tested event.
    2. Of the users with at least two past events, ``round(valid_fraction * users)`` (at least one) drawn by
       ``numpy.random.default_rng(seed)`` are held out for validation: nothing of theirs is trained on.
    3. ``train`` is the past of the other users. Items that occur in it are known; events of unknown items are
       removed from every history and are never a target.
    4. Validation: the last known past event of each held-out user, after the known ones before it.
    5. Test: for each user with a future event of a known item, the last such event, after all known events
       before it, past or future. Held-out users are tested too.

    ``train_on_valid`` holds out no user: ``train`` is the past of all users, known items are those of that past, and
    the validation part is empty.

    Users left without a history are not evaluated. Raises `DataError` if another part comes out empty.
    """
    _require_fractions(quantile=quantile, valid_fraction=valid_fraction)
    user, item, time = interactions.user, interactions.item, interactions.time
    cutoff = np.sort(time)[int(quantile * len(time))]
    past = time < cutoff

    held_out = np.zeros(interactions.num_users, dtype=bool)
    if not train_on_valid:
        past_events = np.bincount(user[past], minlength=interactions.num_users)
        eligible = np.flatnonzero(past_events >= 2)
        count = min(len(eligible), max(1, round(valid_fraction * len(eligible))))
        held_out[np.random.default_rng(seed).choice(eligible, size=count, replace=False)] = True

    in_train = past & ~held_out[user]
    known = np.zeros(interactions.num_items, dtype=bool)
    known[item[in_train]] = True
    in_valid = past & held_out[user] & known[item]
    in_test = known[item]

    valid_history, valid_last = _last_of_each_user(interactions, in_valid)
    test_history, test_last = _last_of_each_user(interactions, in_test)
    keep = np.flatnonzero(~past[test_last])
    split = Split(
        train=_rows_of_users(interactions, in_train),
        valid_history=valid_history,
        valid_target=item[valid_last],
        test_history=take_ranges(test_history.values, test_history.offsets[keep], test_history.offsets[keep + 1]),
        test_target=item[test_last[keep]],
        num_items=interactions.num_items,
        in_train=in_train,
    )
    name = f"global-temporal (quantile {quantile}, cutoff time {cutoff})"
    return _require_parts(split, interactions, name, validated=not train_on_valid)


def by_session(
    interactions: Interactions, *, quantile: float = 0.9, valid_fraction: float = 0.05, train_on_valid: bool = False
) -> Split:
    """Train on earlier sessions and test on later ones, where every user is one session.

    1. Sessions are in order of the time of their first event, those of one time in order of their ids: of times that
       number a session's events by position, all sessions, unless a filter has taken first events away.
    2. The first ``round(quantile * sessions)`` sessions are the past, the later ones are tested. A session is whole in
       one part, even if it ends after later ones begin.
    3. The last ``round(valid_fraction * past)`` sessions of the past (at least one) are held out for validation:
       nothing of theirs is trained on.
    4. ``train`` is the other past sessions. Items that occur in it are known; events of unknown items are removed from
       every history and are never a target.
    5. Validation and test: the last known item of each held-out or later session, after the known ones before it.

    Rows are in order of ids. ``train_on_valid`` holds out no session: ``train`` is the whole past, known items are
    those of that past, and the validation part is empty.

    Sessions left without a history are not evaluated. Raises `ConfigError` for fractions outside (0, 1) and `DataError`
    if another part comes out empty.
    """
    _require_fractions(quantile=quantile, valid_fraction=valid_fraction)
    user, item = interactions.user, interactions.item
    num_sessions = interactions.num_users
    num_past = round(quantile * num_sessions)
    num_held_out = 0 if train_on_valid else min(num_past, max(1, round(valid_fraction * num_past)))
    place = np.empty(num_sessions, dtype=np.int64)  # of each session in time
    place[np.argsort(interactions.time[interactions.offsets[:-1]], kind="stable")] = np.arange(num_sessions)

    past, in_train = (place < num_past)[user], (place < num_past - num_held_out)[user]
    known = np.zeros(interactions.num_items, dtype=bool)
    known[item[in_train]] = True
    valid_history, valid_last = _last_of_each_user(interactions, past & ~in_train & known[item])
    test_history, test_last = _last_of_each_user(interactions, ~past & known[item])
    split = Split(
        train=_rows_of_users(interactions, in_train),
        valid_history=valid_history,
        valid_target=item[valid_last],
        test_history=test_history,
        test_target=item[test_last],
        num_items=interactions.num_items,
        in_train=in_train,
    )
    return _require_parts(split, interactions, f"sessions (quantile {quantile})", validated=not train_on_valid)


def every_event(interactions: Interactions) -> Split:
    """Train on every event: a row a user with all items. The validation and test parts are empty; raises `DataError`
    where no user has two events."""
    nothing, no_target = take_ranges(interactions.item, _NO_PLACE, _NO_PLACE), interactions.item[:0]
    split = Split(
        train=Ragged(interactions.item, interactions.offsets),
        valid_history=nothing,
        valid_target=no_target,
        test_history=nothing,
        test_target=no_target,
        num_items=interactions.num_items,
        in_train=np.ones(len(interactions.item), dtype=bool),
    )
    return _require_parts(split, interactions, "none", validated=False, tested=False)


_NO_PLACE = np.zeros(0, np.int64)

NO_SPLIT = "none"

SPLITS: dict[str, Callable[..., Split]] = {
    "leave-one-out": leave_one_out,
    "global-temporal": global_temporal,
    "sessions": by_session,
    NO_SPLIT: every_event,
}


def make_split(name: str, interactions: Interactions, **options: Any) -> Split:
    """Split by name: ``leave-one-out``, ``global-temporal``, ``sessions`` or ``none`` with ``options`` of that
    function."""
    if name not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {name!r}")
    return SPLITS[name](interactions, **options)


def _require_fractions(**fractions: float) -> None:
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ConfigError(f"{name}: expected a number between 0 and 1, got {fraction}")


def _rows_of_users(interactions: Interactions, chosen: npt.NDArray[np.bool_]) -> Ragged:
    """The items of the ``chosen`` (n,) events, one row for each user who has any, in user order."""
    _, lengths = np.unique(interactions.user[chosen], return_counts=True)
    return Ragged(interactions.item[chosen], offsets_of(lengths))


def _last_of_each_user(
    interactions: Interactions, chosen: npt.NDArray[np.bool_]
) -> tuple[Ragged, npt.NDArray[np.int64]]:
    """For each user with two or more of the ``chosen`` (n,) events, in user order: the items of all but the last, and
    the number of the last among all events."""
    rows = _rows_of_users(interactions, chosen)
    enough = rows.lengths >= 2
    starts, last = rows.offsets[:-1][enough], rows.offsets[1:][enough] - 1
    return take_ranges(rows.values, starts, last), np.flatnonzero(chosen)[last]


def _require_parts(
    split: Split, interactions: Interactions, name: str, *, validated: bool, tested: bool = True
) -> Split:
    """Refuse a split that would only fail once training has begun."""
    trainable = int((split.train.lengths >= 2).sum())
    parts = {"training": trainable, "validation": len(split.valid_target), "test": len(split.test_target)}
    if not validated:
        del parts["validation"]
    if not tested:
        del parts["test"]
    for part, users in parts.items():
        if users == 0:
            raise DataError(
                f"{interactions.source}: the split {name} has no {part} users with a history; "
                f"got {interactions.num_users} users with {len(interactions.item)} interactions"
            )
    return split
