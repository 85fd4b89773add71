"""Finds items by a part of their titles or ids."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..data.catalog import Catalog
from ..option_checks import require

_AT_ONCE, _MOST_TEXT = 2**16, 200


def asked_items(query: Sequence[tuple[str, str]], most: int) -> tuple[str, int]:
    """The text ``q`` (by default none, which is in all) and the ``limit`` (20) of a query, up to ``most``; raises
    ``ConfigError``."""
    given = {"q": "", "limit": "20"}
    for name, value in query:
        require(name in given, "items", "q and limit", f"{name!r:.80}")
        given[name] = value
    text, limit = given["q"], given["limit"]
    is_text = all(unicodedata.category(character) not in ("Cc", "Cs") for character in text)
    require(len(text) <= _MOST_TEXT and is_text, "q", f"at most {_MOST_TEXT} characters, none that controls",
            f"{text!r:.80}")  # fmt: skip
    is_number = limit.isascii() and limit.isdecimal() and len(limit) < 10 and 1 <= int(limit) <= most
    require(is_number, "limit", f"an integer from 1 to {most}", f"{limit!r:.80}")
    return text, int(limit)


def find_items(catalog: Catalog, text: str, limit: int, seconds: float) -> list[dict[str, Any]]:
    """The first ``limit`` items whose title or id has ``text`` in it, in whichever case: ``item_id`` and ``title`` of
    each, the item of this very id first. Raises ``TimeoutError`` after so many ``seconds``, of a large catalog."""
    until = time.monotonic() + seconds
    found: dict[int, None] = {}
    (same,) = catalog.ids([text]).tolist()
    if same >= 0:
        found[same] = None
    for items in _matching(catalog, text, until):
        found.update(dict.fromkeys(items[: limit + 1]))
        if len(found) >= limit:
            break
    labels, titles = catalog.labels, catalog.titles
    return [
        {"item_id": labels[[item]].tolist()[0], "title": None if titles is None else titles[item]}
        for item in list(found)[:limit]
    ]


def _matching(catalog: Catalog, text: str, until: float) -> Iterator[list[int]]:
    for begin in range(0, len(catalog), _AT_ONCE):
        if time.monotonic() > until:
            raise TimeoutError
        part = slice(begin, begin + _AT_ONCE)
        matches = _has(pa.array(catalog.labels[part]).cast(pa.string()), text)
        if catalog.titles is not None:
            matches |= _has(pa.array(catalog.titles[part], pa.string()), text)
        yield (begin + np.flatnonzero(matches)).tolist()


def _has(values: pa.Array, text: str) -> np.ndarray:
    found = pc.match_substring(values, text, ignore_case=True)  # pyright: ignore[reportAttributeAccessIssue]
    return found.fill_null(False).to_numpy(zero_copy_only=False)
