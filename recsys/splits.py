"""Train, validation and test parts of a set of interactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ConfigError, DataError
from .interactions import Interactions
from .ragged import Ragged, offsets_of, take_ranges

Items = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Split:
    """What to train on and what to predict.

    ``train`` has one row of items for each training user; row ``i`` of ``valid_history`` is followed by
    ``valid_target[i]`` (int32), and likewise for test. Items are dense ids below ``num_items``.
    """

    train: Ragged
    valid_history: Ragged
    valid_target: Items
    test_history: Ragged
    test_target: Items
    num_items: int


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
    split = Split(
        train=take_ranges(item, starts, train_stops),
        valid_history=take_ranges(item, valid_first, valid_last - 2),
        valid_target=item[valid_last - 2],
        test_history=take_ranges(item, first, last - 1),
        test_target=item[last - 1],
        num_items=interactions.num_items,
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

    ``train_on_valid`` holds out no user: ``train`` is the past of all users, known items are those of that past, and the
    validation part is empty.

    Users left without a history are not evaluated. Raises `DataError` if another part comes out empty.
    """
    if not 0 < quantile < 1:
        raise ConfigError(f"quantile: expected a number between 0 and 1, got {quantile}")
    if not 0 < valid_fraction < 1:
        raise ConfigError(f"valid_fraction: expected a number between 0 and 1, got {valid_fraction}")
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

    train_user, train_item = user[in_train], item[in_train]
    _, train_lengths = np.unique(train_user, return_counts=True)
    valid_history, valid_target, _ = _last_of_each_user(user[in_valid], item[in_valid], past[in_valid])
    test_history, test_target, test_past = _last_of_each_user(user[in_test], item[in_test], past[in_test])
    keep = np.flatnonzero(~test_past)
    split = Split(
        train=Ragged(train_item, offsets_of(train_lengths)),
        valid_history=valid_history,
        valid_target=valid_target,
        test_history=take_ranges(test_history.values, test_history.offsets[keep], test_history.offsets[keep + 1]),
        test_target=test_target[keep],
        num_items=interactions.num_items,
    )
    name = f"global-temporal (quantile {quantile}, cutoff time {cutoff})"
    return _require_parts(split, interactions, name, validated=not train_on_valid)


SPLITS: dict[str, Callable[..., Split]] = {
    "leave-one-out": leave_one_out,
    "global-temporal": global_temporal,
}


def make_split(name: str, interactions: Interactions, **options: Any) -> Split:
    """Split by name: ``leave-one-out`` or ``global-temporal`` with ``options`` of that function."""
    if name not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {name!r}")
    return SPLITS[name](interactions, **options)


def _last_of_each_user(
    user: npt.NDArray[np.int32], item: Items, flag: npt.NDArray[np.bool_]
) -> tuple[Ragged, Items, npt.NDArray[np.bool_]]:
    """History, last item and its flag of each user with two or more of these rows, in user order."""
    _, lengths = np.unique(user, return_counts=True)
    offsets = offsets_of(lengths)
    enough = lengths >= 2
    starts, last = offsets[:-1][enough], offsets[1:][enough] - 1
    return take_ranges(item, starts, last), item[last], flag[last]


def _require_parts(split: Split, interactions: Interactions, name: str, *, validated: bool) -> Split:
    """Refuse a split that would only fail once training has begun."""
    trainable = int((split.train.lengths >= 2).sum())
    parts = {"training": trainable, "validation": len(split.valid_target), "test": len(split.test_target)}
    if not validated:
        del parts["validation"]
    for part, users in parts.items():
        if users == 0:
            raise DataError(
                f"{interactions.source}: the split {name} has no {part} users with a history; "
                f"got {interactions.num_users} users with {len(interactions.item)} interactions"
            )
    return split
