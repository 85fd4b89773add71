"""Whom to recommend to: users of the data by name, or sequences of items from a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.catalog import Catalog
from ..data.ids import shown
from ..data.interactions import Interactions
from ..data.ragged import Ragged, take_ranges
from ..data.tables import read_columns
from ..errors import ConfigError, DataError
from ..files import usable

logger = logging.getLogger(__name__)

USER, ITEMS = "user_id", "items"
"""Keys of a JSON object and columns of a Parquet file of sequences."""


UNKNOWN_USERS = ("error", "skip", "popular")
"""What becomes of users that the data lack: an error, they are left out, or they get the most popular items."""


@dataclass(frozen=True, eq=False)
class Requests:
    """Row i of ``histories`` (item ids, in order of time) is what ``users[i]`` has done; ``unknown`` (rows,) marks
    users of whom the data know nothing, whose rows are empty."""

    users: Sequence[Any] | npt.NDArray[Any]
    histories: Ragged
    unknown: npt.NDArray[np.bool_]

    @classmethod
    def of_known(cls, users: Sequence[Any] | npt.NDArray[Any], histories: Ragged) -> Requests:
        """Of users who are all known."""
        return cls(users, histories, np.zeros(len(histories), np.bool_))

    def __len__(self) -> int:
        return len(self.histories)

    def part(self, begin: int, end: int) -> Requests:
        """The rows from ``begin`` to before ``end``."""
        offsets = self.histories.offsets[begin : end + 1]
        rows = Ragged(self.histories.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        return Requests(self.users[begin:end], rows, self.unknown[begin:end])


def all_users(interactions: Interactions) -> Requests:
    """The whole histories of all users, in order of their ids."""
    return Requests.of_known(interactions.user_labels, Ragged(interactions.item, interactions.offsets))


def listed(name: str, values: Any) -> list[Any]:
    """Values in Python's own types, of an array, a series or Arrow's too; raises `DataError` that names the argument
    for a text and for what is no list."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"{name}: expected a list, got {values!r:.80}")
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [value.item() if isinstance(value, np.generic) else value.as_py() if isinstance(value, pa.Scalar) else value
            for value in found]  # fmt: skip


def item_ids(name: str, labels: Iterable[str | int], catalog: Catalog) -> npt.NDArray[np.int32]:
    """Items (n,) by their original ids; raises `DataError` that names the argument for one that the catalog lacks."""
    asked = listed(name, labels)
    ids = catalog.ids(asked)
    if (ids < 0).any():
        unknown = next(label for label, item in zip(asked, ids, strict=True) if item < 0)
        raise DataError(f"{name}: expected items of the catalog ({len(catalog)} of them), got {unknown!r:.80}")
    return ids


def user_requests(interactions: Interactions, users: Sequence[Any], *, unknown: str = "error") -> Requests:
    """The whole histories of users by their original ids, in the order in which they are named.

    Users that the data lack raise `DataError` with ``unknown`` "error", are left out with one warning with "skip", and
    come with an empty row that is marked with "popular". Raises `ConfigError` for another ``unknown``.
    """
    if unknown not in UNKNOWN_USERS:
        raise ConfigError(f"unknown_users: expected one of {', '.join(UNKNOWN_USERS)}, got {unknown!r}")
    labels, place = interactions.user_labels, interactions.user_places
    row = np.array([place.get(str(user), -1) for user in users], dtype=np.int64)
    others = [str(user) for user, number in zip(users, row.tolist(), strict=True) if number < 0]
    if others and unknown == "error":
        raise DataError(
            f"users: expected users of {interactions.source} ({len(labels)} of them), got {shown(others)}, "
            f"{len(others)} of {len(users)} users; unknown_users = skip or popular goes on without their histories"
        )
    if others and unknown == "skip":
        logger.warning(
            "%s: left out %d of %d users that it does not have: %s",
            interactions.source, len(others), len(users), shown(others),
        )  # fmt: skip
        row = row[row >= 0]
    known = row >= 0
    starts, stops = (np.where(known, interactions.offsets[end], 0) for end in (row, row + 1))
    histories = take_ranges(interactions.item, starts, stops)
    if known.all():
        return Requests.of_known(labels[row].tolist(), histories)
    texts = [str(user) if number < 0 else str(labels[number]) for user, number in zip(users, row.tolist(), strict=True)]
    # users of the data and others are written to one column, which holds integers or text
    are_integers = interactions.user_labels.dtype.kind == "i" and all(map(_writes_integer, texts))
    return Requests([int(text) for text in texts] if are_integers else texts, histories, ~known)


def _writes_integer(text: str) -> bool:
    """Whether this is how an integer of 64 bits is written."""
    is_number = len(text) <= 20 and text.removeprefix("-").isdecimal()
    return is_number and str(int(text)) == text and _is_integer(int(text))


def read_requests(path: Path, catalog: Catalog, *, skip_unknown: bool) -> Requests:
    """Sequences of items by their original ids, the latest last, from a file that ends in .json or .parquet.

    JSON: a list of sequences, an object of sequences by user, or a list of objects with "items" and, all or none of
    them, "user_id". Parquet: a row a sequence with a list column "items" and, if present, "user_id". Users are text or
    integers; without names they are numbered from 0. An item that the catalog lacks raises `DataError`, or is left out
    with ``skip_unknown``; so does a sequence without items.
    """
    with usable("sequences", "a file that can be read"):
        users, sequences = _read(path)
    return sequence_requests(users, sequences, catalog, skip_unknown=skip_unknown, source=str(path))


def sequence_requests(
    users: list[Any], sequences: list[Any], catalog: Catalog, *, skip_unknown: bool, source: str
) -> Requests:
    """Sequences of items by their original ids, of as many users; see `read_requests`. ``source`` names them in
    messages."""
    if not sequences:
        raise DataError(f"{source}: expected at least one sequence, got none")
    if not (all(map(_is_text, users)) or all(map(_is_integer, users))):
        odd = next((user for user in users if not _is_text(user)), None)
        raise DataError(f"{source}: expected {USER!r} to be text everywhere, or integers, got {odd!r:.80} among them")
    for user, sequence in zip(users, sequences, strict=True):
        if not isinstance(sequence, list) or not all(map(is_id, sequence)):
            raise DataError(
                f"{source}: expected a list of item ids (text or integers) for user {user!r}, got {sequence!r:.80}"
            )
    ids = [catalog.ids(sequence) for sequence in sequences]
    unknown = [(user, label) for user, sequence, row in zip(users, sequences, ids, strict=True)
               for label, item in zip(sequence, row, strict=True) if item < 0]  # fmt: skip
    if unknown and not skip_unknown:
        user, label = unknown[0]
        raise DataError(
            f"{source}: expected items of the catalog ({len(catalog)} of them), got {len(unknown)} others, the first "
            f"{label!r} of user {user!r}; skip_unknown leaves them out"
        )
    if unknown:
        logger.warning("%s: left out %d items that are not in the catalog", source, len(unknown))
    kept = [row[row >= 0] for row in ids]
    for user, row in zip(users, kept, strict=True):
        if len(row) == 0:
            raise DataError(f"{source}: expected at least one known item for each user, got none for {user!r}")
    return Requests.of_known(users, Ragged.from_rows(kept))


def _read(path: Path) -> tuple[list[Any], list[Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    readers = {".json": _read_json, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: expected a file name that ends in {' or '.join(readers)}, got {path.name!r}")
    return readers[path.suffix.lower()](path)


def _is_text(value: Any) -> bool:
    """Whether it can be written again: JSON may escape halves of characters."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_id(value: Any) -> bool:
    """Items match by their text, however large a number is."""
    return _is_text(value) or (isinstance(value, int) and not isinstance(value, bool))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which Python would silently keep the last of repeated keys."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"an object has {len(pairs)} keys, of which {len(content)} are different")
    return content


def _read_json(path: Path) -> tuple[list[Any], list[Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_distinct)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if isinstance(content, dict):
        return list(content), list(content.values())
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a JSON list or object, got {type(content).__name__}")
    if not any(isinstance(row, dict) for row in content):
        return list(range(len(content))), content
    named = any(isinstance(row, dict) and USER in row for row in content)
    keys = (USER, ITEMS) if named else (ITEMS,)
    for number, row in enumerate(content):
        for key in keys:
            if not isinstance(row, dict) or key not in row:
                found = ", ".join(row) if isinstance(row, dict) else f"{row!r:.80}"
                raise DataError(
                    f"{path}: expected the key {key!r} in every object or in none, got {found} in number {number}"
                )
    return [row[USER] if named else number for number, row in enumerate(content)], [row[ITEMS] for row in content]


def _read_parquet(path: Path) -> tuple[list[Any], list[Any]]:
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({error})") from error
    table = read_columns(path, values=[ITEMS, USER] if USER in names else [ITEMS])
    sequences = table[ITEMS].to_pylist()
    return table[USER].to_pylist() if USER in names else list(range(len(sequences))), sequences
