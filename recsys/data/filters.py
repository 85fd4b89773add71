"""Filters of events: repeated ones, by rating, and by how often an item and a user occur."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from .interactions import Interactions

logger = logging.getLogger(__name__)


def keep_rated(interactions: Interactions, min_rating: float) -> Interactions:
    """The events with ``rating >= min_rating``, users and items numbered anew.

    Raises ``ConfigError`` for events without ratings or a ``min_rating`` not finite, and ``DataError`` if none is left.
    """
    if not math.isfinite(min_rating):
        raise ConfigError(f"min_rating: expected a finite number, got {min_rating}")
    if interactions.rating is None:
        raise ConfigError(f"min_rating: expected events with ratings, got {interactions.source} read without them")
    keep = interactions.rating >= min_rating
    if not keep.any():
        raise DataError(
            f"{interactions.source}: min_rating = {min_rating} leaves none of {len(keep)} events; "
            f"the highest rating is {interactions.rating.max()}"
        )
    return take_events(interactions, keep)


def drop_repeated(interactions: Interactions) -> Interactions:
    """The events without those that repeat another's user, item and time; how many they are is logged."""
    order = np.lexsort((interactions.item, interactions.time, interactions.user))
    repeats = np.zeros(len(order), dtype=bool)
    same = np.ones(len(order) - 1, dtype=bool)
    for column in (interactions.user, interactions.item, interactions.time):
        same &= column[order][1:] == column[order][:-1]
    repeats[order[1:]] = same  # the sort is stable: the first of them stays
    if not repeats.any():
        return interactions
    logger.warning(
        "%s: left out %d of %d events, which repeat another", interactions.source, repeats.sum(), len(repeats)
    )
    return take_events(interactions, ~repeats)


def keep_frequent(interactions: Interactions, *, min_item_events: int = 1, min_user_events: int = 1) -> Interactions:
    """The largest set of events in which every item and every user has enough of them, numbered anew.

    One round drops all events of items with fewer than ``min_item_events`` events, then all events of users with fewer
    than ``min_user_events`` of what is left. Rounds are repeated until one drops nothing, as a user's departure may
    leave an item short: the result is the (min_user_events, min_item_events)-core of the bipartite graph of users and
    items, which does not depend on the order. Every event counts, those that repeat a user's item too. Raises
    ``DataError`` if none is left.

    Events that are later validated and tested on count too: before a split in time, an item may be kept for what
    happens after its moment. Published protocols filter whole logs so; with counts of 1 nothing is known of the future.
    """
    for name, least in (("min_item_events", min_item_events), ("min_user_events", min_user_events)):
        if least < 1:
            raise ConfigError(f"{name}: expected a positive integer, got {least}")
    # One event of its own suffices for either: no round could drop anything.
    if min_item_events == min_user_events == 1:
        return interactions
    filters = (
        ("min_item_events", interactions.item, min_item_events),
        ("min_user_events", interactions.user, min_user_events),
    )
    keep = np.ones(len(interactions.item), dtype=bool)
    while True:
        before = int(keep.sum())
        for name, ids, least in filters:
            keep &= (np.bincount(ids[keep], minlength=1 + int(ids.max())) >= least)[ids]
            if not keep.any():
                raise DataError(
                    f"{interactions.source}: {name} = {least} leaves none of {len(keep)} events "
                    f"(min_item_events = {min_item_events} and min_user_events = {min_user_events}, repeated until "
                    f"stable)"
                )
        if int(keep.sum()) == before:
            return take_events(interactions, keep)


def take_events(interactions: Interactions, keep: npt.NDArray[np.bool_]) -> Interactions:
    """The events where ``keep`` (n,) is true, in the same order; users and items without an event lose their ids."""
    if keep.all():
        return interactions
    users, user = np.unique(interactions.user[keep], return_inverse=True)
    items, item = np.unique(interactions.item[keep], return_inverse=True)
    titles, rating = interactions.item_titles, interactions.rating
    return replace(
        interactions,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        time=interactions.time[keep],
        user_labels=interactions.user_labels[users],
        item_labels=interactions.item_labels[items],
        item_titles=None if titles is None else [titles[kept] for kept in items],
        rating=None if rating is None else rating[keep],
    )
