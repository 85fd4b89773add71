"""Recommendations for many users, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from ..data.catalog import Catalog
from ..data.ragged import Ragged, offsets_of
from ..errors import ConfigError
from ..protocol.list_metrics import NO_ITEM
from ..protocol.popularity import PopularityBaseline
from .candidates import Ids, candidates_of
from .id_files import read_items
from .long_table import recommendation_table, written
from .requests import Requests
from .selection import Selection
from .served_run import Load, ServedModel, ServedRun

PART = 2**14
"""Users whose recommendations are in memory at once."""

LAST_SEEN = 3
"""Items of a history that a recommendation is shown with."""


@dataclass(frozen=True)
class Recommendation:
    """The best items of one user, best first: their original ids, what to call them and their scores, None for items
    that are merely popular. ``last_seen`` is what to call the latest items of the history."""

    user: Any
    items: list[Any]
    names: list[str]
    scores: list[float | None]
    last_seen: list[str]


@dataclass(frozen=True, eq=False)
class Recommended:
    """What is recommended to some users: ids of ``items`` (rows, k) of the ``catalog``, best first, and their
    ``scores`` (rows, k) float32, NaN for items that are merely popular. `NO_ITEM` is no item."""

    requests: Requests
    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    catalog: Catalog

    def __len__(self) -> int:
        return len(self.items)

    def table(self) -> pa.Table:
        """One recommended item a row, see `recommendation_table`."""
        return recommendation_table(self.requests.users, self.items, self.scores, self.catalog)

    def rows(self) -> Iterator[Recommendation]:
        """One user after the other."""
        users, catalog = self.requests.users, self.catalog
        users = users.tolist() if isinstance(users, np.ndarray) else users
        for user, places, scores, history in zip(users, self.items, self.scores, self.requests.histories, strict=True):
            items = places[places != NO_ITEM]
            found = [written(score) for score in scores[: len(items)].tolist()]
            labels, names = catalog.labels[items].tolist(), catalog.names(items)
            yield Recommendation(user, labels, names, found, catalog.names(history[-LAST_SEEN:]))


def recommend_parts(
    model: ServedModel,
    catalog: Catalog,
    requests: Requests,
    k: int,
    *,
    filter_seen: bool = True,
    candidates: Ids | None = None,
    popular: Ids | None = None,
) -> Iterator[Recommended]:
    """The k best items for ``requests``, `PART` users after the other, with a progress bar on a terminal; at least one
    part.

    ``candidates`` (n,) are ids of the items to choose from, by default all; ``filter_seen`` leaves out those of a
    user's history. Users of whom nothing is known get the first k of ``popular`` (n,) items, best first, with the score
    NaN; raises ``ConfigError`` where there are such users and none of these.
    """
    if popular is None and requests.unknown.any():
        raise ConfigError(f"popular: expected items for {requests.unknown.sum()} users without a history, got none")
    # disable=None: no bar where the output is no terminal.
    with tqdm(desc="recommend", total=len(requests), unit=" users", leave=False, disable=None) as bar:
        for begin in range(0, max(len(requests), 1), PART):
            part = requests.part(begin, begin + PART)
            yield recommend_part(
                model, catalog, part, k, filter_seen=filter_seen, candidates=candidates, popular=popular
            )
            bar.update(len(part))


def recommend_part(
    model: ServedModel,
    catalog: Catalog,
    part: Requests,
    k: int,
    *,
    filter_seen: bool = True,
    candidates: Ids | None = None,
    popular: Ids | None = None,
) -> Recommended:
    """The k best items for all of a ``part`` at once, with the options of `recommend_parts`."""
    if popular is None and part.unknown.any():
        raise ConfigError(f"popular: expected items for {part.unknown.sum()} users without a history, got none")
    known = np.flatnonzero(~part.unknown)
    # a row that is unknown is empty: the others' values are all
    rows = Ragged(part.histories.values, offsets_of(part.histories.lengths[known]))
    found = model.recommend(rows, k, filter_seen=filter_seen, candidates=candidates)
    items = np.full((len(part), k), NO_ITEM, np.int64)
    scores = np.full((len(part), k), -np.inf, np.float32)
    items[known], scores[known] = found
    if popular is not None and part.unknown.any():
        first = np.asarray(popular)[:k]
        places = np.ix_(part.unknown, np.arange(len(first)))
        items[places], scores[places] = first, np.nan
    return Recommended(part, items, scores, catalog)


def recommend_run(
    run: ServedRun,
    load: Load,
    selection: Selection,
    *,
    k: int = 10,
    filter_seen: bool = True,
    candidates: Path | None = None,
    exclude: Path | None = None,
    device: str = "auto",
) -> Iterator[Recommended]:
    """The top k items for the users of a ``selection``, part by part; what is wrong with it is raised before any part.

    ``candidates`` and ``exclude`` are files of items (see `read_items`): only those may be recommended, and none of
    these. Users whom the data lack get the items with the most training events among them, if ``selection`` says so;
    ``k`` and what the model refuses are told of by the first part.
    """
    chosen, excluded = (
        None if path is None else read_items(path, run.config.item_column, run.catalog, option=option)
        for option, path in (("candidates", candidates), ("exclude", exclude))
    )
    mask = candidates_of(len(run.catalog), chosen, excluded)
    interactions = None if selection.sequences is not None else run.read_events()
    requests, popular = selection.requests(run, interactions), None
    if interactions is not None and requests.unknown.any():
        popular = PopularityBaseline(run.train_part(interactions), len(run.catalog)).top(k, mask)
    model = run.load(load, device)
    ids = None if mask is None else np.flatnonzero(mask)
    return recommend_parts(model, run.catalog, requests, k, filter_seen=filter_seen, candidates=ids, popular=popular)
