"""What is asked of a model: questions of equal options are answered by one call."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, offsets_of
from ..protocol.list_metrics import NO_ITEM
from ..serving.candidates import candidates_of
from ..serving.long_table import written_all
from ..serving.recommendations import recommend_part
from ..serving.requests import Requests
from ..serving.similar_items import similar_items
from .loaded_run import LoadedRun

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Items (rows, k), best first, and their scores (rows, k)."""


class Question(ABC):
    """A request that was checked against the run that answers it: ``rows`` of it, ``k`` items for each."""

    kind: ClassVar[str]
    loaded: LoadedRun
    k: int

    @property
    @abstractmethod
    def rows(self) -> int: ...

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Equal for those that one call answers."""

    @staticmethod
    @abstractmethod
    def together(questions: Sequence[Any]) -> list[Found]:
        """What each of ``questions`` of one kind and key asks for, by one call of the model."""

    def answer(self, found: Found) -> bytes:
        """As JSON: a list of items a row, best first, and none for a place that is empty. It is written row by row, so
        that other threads have their turn."""
        rows = b",".join(map(self._row, *found))
        return b'{"rows":[%b]%b}' % (rows, self._told())

    def _row(self, places: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> bytes:
        catalog, items = self.loaded.catalog, places[places != NO_ITEM]
        labels = catalog.labels[items].tolist()
        titles = [None] * len(labels) if catalog.titles is None else [catalog.titles[item] for item in items]
        told = zip(labels, titles, written_all(scores[: len(items)]), strict=True)
        return _json(
            [
                {"item_id": label, "title": title, "score": score, "rank": rank}
                for rank, (label, title, score) in enumerate(told, start=1)
            ]
        )

    def _told(self) -> bytes:
        """What an answer tells behind its rows."""
        return b""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _width(k: int, most: int) -> int:
    """The power of two from k up, or ``most``: the first k of more items are the best k, so that requests of unlike k
    share a call, and JAX compiles few."""
    return min(1 << (k - 1).bit_length(), most)


def _split(questions: Sequence[Question], items: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> list[Found]:
    ends = np.cumsum([question.rows for question in questions]).tolist()
    parts = [slice(end - question.rows, end) for question, end in zip(questions, ends, strict=True)]
    return [
        (items[part, : question.k], scores[part, : question.k]) for question, part in zip(questions, parts, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Recommend(Question):
    """The best next items after each history of ``requests``, of ``candidates`` (n,), ascending, or of all items;
    ``named`` says that the rows are users, whom the answer names."""

    kind = "recommend"
    loaded: LoadedRun
    k: int
    requests: Requests
    named: bool
    filter_seen: bool = True
    candidates: npt.NDArray[np.int32] | None = None

    @property
    def rows(self) -> int:
        return len(self.requests)

    @property
    def width(self) -> int:
        return _width(self.k, len(self.loaded.catalog))

    @property
    def key(self) -> Hashable:
        return self.kind, id(self.loaded), self.width, self.filter_seen, self._chosen

    @cached_property
    def _chosen(self) -> bytes | None:
        """The candidates' digest: keys of all that wait are compared for each call."""
        return None if self.candidates is None else hashlib.blake2b(self.candidates.tobytes()).digest()

    @staticmethod
    def together(questions: Sequence[Recommend]) -> list[Found]:
        first = questions[0]
        loaded, width, candidates = first.loaded, first.width, first.candidates
        requests = _joined([question.requests for question in questions])
        popular = None
        if requests.unknown.any():
            popular = loaded.popular().top(width, candidates_of(len(loaded.catalog), candidates))
        found = recommend_part(
            loaded.model, loaded.catalog, requests, width,
            filter_seen=first.filter_seen, candidates=candidates, popular=popular,
        )  # fmt: skip
        return _split(questions, found.items, found.scores)

    def _told(self) -> bytes:
        return b',"users":' + _json(list(self.requests.users)) if self.named else b""


def _joined(requests: Sequence[Requests]) -> Requests:
    histories = [each.histories for each in requests]
    lengths = np.concatenate([rows.lengths for rows in histories])
    values = np.concatenate([rows.values for rows in histories])
    users = [user for each in requests for user in each.users]
    return Requests(users, Ragged(values, offsets_of(lengths)), np.concatenate([each.unknown for each in requests]))


@dataclass(frozen=True, eq=False)
class Similar(Question):
    """The other items whose vectors have the largest cosine with those of each of ``items`` (n,)."""

    kind = "similar"
    loaded: LoadedRun
    k: int
    items: npt.NDArray[np.int32]

    @property
    def rows(self) -> int:
        return len(self.items)

    @property
    def width(self) -> int:
        return _width(self.k, len(self.loaded.catalog) - 1)

    @property
    def key(self) -> Hashable:
        return self.kind, id(self.loaded), self.width

    @staticmethod
    def together(questions: Sequence[Similar]) -> list[Found]:
        items = np.concatenate([question.items for question in questions])
        found = similar_items(questions[0].loaded.model.item_vectors(), items, questions[0].width)
        return _split(questions, *found)
