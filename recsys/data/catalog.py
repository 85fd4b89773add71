"""The items that a model knows: its ids' original labels and titles, kept beside the weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from .ids import places, shown
from .interactions import Interactions
from .tables import read_columns, require_no_nulls


@dataclass(frozen=True, eq=False)
class Catalog:
    """``labels`` (V,) are the original ids of items 0..V-1, int64 or text; ``titles`` one text an item, or None."""

    labels: npt.NDArray[Any]
    titles: Sequence[str] | None = None

    @classmethod
    def of(cls, interactions: Interactions) -> Catalog:
        return cls(interactions.item_labels, interactions.item_titles)

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, items: Iterable[int]) -> list[str]:
        """What to call items: their titles, or their labels where there are none."""
        source = self.labels if self.titles is None else self.titles
        return [str(source[item]) for item in items]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return places(self.labels.tolist())

    @cached_property
    def _integers_ascend(self) -> bool:
        return len(self.labels) > 0 and _ascend(self.labels)

    def ids(self, labels: Iterable[str | int]) -> npt.NDArray[np.int32]:
        """The item of each label, -1 where there is none; they match by what they say: 7 is "7", not "007"."""
        text = [str(label) for label in labels]
        if self._integers_ascend:  # a table of a hundred million texts takes minutes, and most of a host's memory
            numbers = np.array([_integer(each) for each in text], np.int64)
            place = np.searchsorted(self.labels, numbers).clip(max=len(self.labels) - 1)
            spelled = (str(number) == each for number, each in zip(numbers.tolist(), text, strict=True))
            is_written = np.fromiter(spelled, np.bool_, len(text))
            return np.where((self.labels[place] == numbers) & is_written, place, -1).astype(np.int32)
        known = self._ids
        return np.fromiter((known.get(each, -1) for each in text), dtype=np.int32)

    def places_of(self, other: Catalog) -> npt.NDArray[np.int32]:
        """The item here of each item of ``other`` (V',), -1 where there is none; `ids` of its labels."""
        if not (self._integers_ascend and other.labels.dtype.kind == "i"):
            return self.ids(other.labels.tolist())
        place = np.searchsorted(self.labels, other.labels).clip(max=len(self) - 1)
        return np.where(self.labels[place] == other.labels, place, -1).astype(np.int32)

    def same_items(self, other: Catalog) -> bool:
        """Whether each item is the same in both, by its label's text."""
        return len(self) == len(other) and np.array_equal(self.places_of(other), np.arange(len(self)))

    def write(self, path: Path) -> None:
        """Writes a Parquet file with the columns ``item`` and, where there are titles, ``title``, by a rename."""
        columns: dict[str, Any] = {"item": pa.array(self.labels)}
        if self.titles is not None:
            columns["title"] = pa.array(self.titles, pa.string())
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        pq.write_table(pa.table(columns), temporary)
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Catalog:
        """Reads what `write` wrote, labels of the same type; raises `DataError`, also for labels that occur twice."""
        table = read_columns(path, ids=["item"])
        require_no_nulls(table, ["item"], str(path))
        has_titles = "title" in pq.read_schema(path).names
        titles = read_columns(path, text=["title"])["title"].to_pylist() if has_titles else None
        labels = table["item"].to_numpy()
        if not _ascend(labels) and (different := len(table["item"].unique())) < len(labels):
            raise DataError(f"{path}: column 'item' must hold different labels, got {different} in {len(labels)} rows")
        return cls(labels, titles)

    def require_same(self, interactions: Interactions, *, source: str) -> None:
        """Raises `DataError` where the data's items are not these, of which ``source`` tells."""
        if np.array_equal(self.labels, interactions.item_labels):
            return
        ours, theirs = self.labels.tolist(), interactions.item_labels.tolist()
        known, given = set(ours), set(theirs)
        missing = [label for label in ours if label not in given]
        new = [label for label in theirs if label not in known]
        retyped = self.labels.dtype.kind == "i" and interactions.item_labels.dtype.kind != "i"
        raise DataError(
            f"data: expected the {len(self)} items of {source}, got {interactions.num_items} items in "
            f"{interactions.source}: {_some(missing, 'missing')}, {_some(new, 'unknown')}"
            + "; a run made when ids such as 007 in CSV were read as integers has to be trained again"
            * retyped
        )


def titled_as(interactions: Interactions, catalog: Catalog) -> Interactions:
    """With the titles of ``catalog``; items that it lacks are titled by their ids."""
    if catalog.titles is None:
        return interactions
    labels = interactions.item_labels.tolist()
    places = catalog.ids(labels).tolist()
    titles = [str(label) if place < 0 else catalog.titles[place] for label, place in zip(labels, places, strict=True)]
    return replace(interactions, item_titles=titles)


def _ascend(labels: npt.NDArray[Any]) -> bool:
    """Whether these are integers, each larger than the one before."""
    return labels.dtype.kind == "i" and bool((labels[1:] > labels[:-1]).all())


def _integer(text: str) -> int:
    """What ``text`` writes, if it is an integer of 64 bits; else 0."""
    try:
        number = int(text)
    except ValueError:
        return 0
    return number if -(2**63) <= number < 2**63 else 0


def _some(labels: Sequence[Any], what: str) -> str:
    return f"{len(labels)} {what}" + (f" ({shown(labels)})" if labels else "")
