"""The events of a log that are of a model's items, which may have been trained on another log."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np

from ..errors import DataError
from .catalog import Catalog
from .ids import shown
from .interactions import Interactions

logger = logging.getLogger(__name__)


def in_catalog(interactions: Interactions, catalog: Catalog, *, source: str) -> Interactions:
    """The events of items of ``catalog``, numbered as there; items match by what they say, as in `data.ids`.

    Events of other items are left out, with one warning of how many they are and of users that are left without any;
    users are numbered anew then. Items of the catalog need no event. Raises `DataError` where no event is left, and for
    a catalog of integers whose items the log writes otherwise (``007`` for 7), as a version before read them so.
    ``source`` tells of the catalog.
    """
    if np.array_equal(catalog.labels, interactions.item_labels):
        return interactions
    labels = interactions.item_labels.tolist()
    place = catalog.ids(labels)
    item = place[interactions.item]
    known = item >= 0
    if catalog.labels.dtype.kind == "i":
        written = set(map(str, labels))
        padded = [str(int(label)) for label in written if re.fullmatch(r"-?0+\d+", label)]
        if (catalog.ids(number for number in padded if number not in written) >= 0).any():
            catalog.require_same(interactions, source=source)
    if not known.any():
        raise DataError(
            f"data: expected events of the {len(catalog)} items of {source}, got none in {interactions.source}, whose "
            f"{len(labels)} items are others: {shown(labels)}"
        )
    users, user = np.unique(interactions.user[known], return_inverse=True)
    if not known.all():
        unknown = np.unique(interactions.item[~known])
        logger.warning(
            "%s: left out %d of %d events, of %d items that the run does not know (%s); %d of %d users have no other",
            interactions.source, (~known).sum(), len(known), len(unknown),
            shown(interactions.item_labels[unknown].tolist()),
            interactions.num_users - len(users), interactions.num_users,
        )  # fmt: skip
    return replace(
        interactions,
        user=user.astype(np.int32),
        item=item[known],
        time=interactions.time[known],
        user_labels=interactions.user_labels[users],
        item_labels=catalog.labels,
        item_titles=None if catalog.titles is None else list(catalog.titles),
        rating=None if interactions.rating is None else interactions.rating[known],
    )
