"""The bodies of requests: what may be in them, and the questions that they ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ..errors import ConfigError, DataError
from ..option_checks import check_type, require
from ..serving.evaluation import require_k
from ..serving.requests import Requests, is_id, item_ids, sequence_requests, user_requests
from .limits import Limits
from .loaded_run import LoadedRun
from .questions import Question, Recommend, Similar


class MalformedError(ValueError):
    """A body that is no JSON."""


Ask = Callable[[bytes, LoadedRun, Limits], Question]
"""The question that a body asks of a run. Raises `MalformedError`, ``ConfigError`` and ``DataError``."""

_RECOMMEND = {
    "users": None, "sequences": None, "k": 10, "candidates": None, "filter_seen": True, "unknown_users": "error",
    "skip_unknown": False,
}  # fmt: skip


def ask_recommend(body: bytes, loaded: LoadedRun, limits: Limits) -> Question:
    """Of ``{"users": [ids]}`` or ``{"sequences": [[ids]]}``, with the options of ``Recommender.recommend``."""
    given = _fields(body, _RECOMMEND)
    users, sequences = given["users"], given["sequences"]
    if (users is None) == (sequences is None):
        raise ConfigError(f"users: expected users or sequences, got {'none' if users is None else 'both'}")
    for name in ("filter_seen", "skip_unknown"):
        check_type(name, given[name], bool)
    _check_k(given["k"], len(loaded.catalog), limits)
    chosen = None
    if given["candidates"] is not None:
        labels = _ids("candidates", given["candidates"], limits.max_ids)
        chosen = np.unique(item_ids("candidates", labels, loaded.catalog))
    if sequences is None:
        requests = _of_users(users, given, loaded, limits)
    else:
        requests = _of_sequences(sequences, given, loaded, limits)
    _check_items(len(requests), given["k"], limits)
    return Recommend(loaded, given["k"], requests, sequences is None, given["filter_seen"], chosen)


def _of_users(users: Any, given: dict[str, Any], loaded: LoadedRun, limits: Limits) -> Requests:
    if given["skip_unknown"]:
        raise ConfigError("skip_unknown: only for sequences, got users")
    requests = user_requests(loaded.users(), _ids("users", users, limits.max_rows), unknown=given["unknown_users"])
    if requests.unknown.any():
        loaded.popular()
    return requests


def _of_sequences(sequences: Any, given: dict[str, Any], loaded: LoadedRun, limits: Limits) -> Requests:
    if given["unknown_users"] != "error":
        raise ConfigError(f"unknown_users: only for users, got {given['unknown_users']!r:.80} with sequences")
    require(isinstance(sequences, list), "sequences", "a list of lists of item ids", f"{sequences!r:.80}")
    _check_length("sequences", sequences, limits.max_rows)
    for number, sequence in enumerate(sequences):
        require(isinstance(sequence, list), "sequences", f"a list of item ids for row {number}", f"{sequence!r:.80}")
        most = limits.max_ids
        require(len(sequence) <= most, "sequences", f"at most {most} ids in row {number}", len(sequence))
    return sequence_requests(
        list(range(len(sequences))), sequences, loaded.catalog,
        skip_unknown=given["skip_unknown"], source="sequences",
    )  # fmt: skip


def ask_similar(body: bytes, loaded: LoadedRun, limits: Limits) -> Question:
    """Of ``{"items": [ids]}``, with ``k`` as in ``Recommender.similar_items``."""
    given = _fields(body, {"items": None, "k": 10})
    _check_k(given["k"], len(loaded.catalog) - 1, limits)
    labels = _ids("items", given["items"], limits.max_rows)
    _check_items(len(labels), given["k"], limits)
    return Similar(loaded, given["k"], item_ids("items", labels, loaded.catalog))


def _fields(body: bytes, defaults: dict[str, Any]) -> dict[str, Any]:
    """A JSON object's values by name, with the ``defaults`` of those that it lacks."""
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"body: expected JSON, got what cannot be read as such ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"body: expected a JSON object, got {content!r:.80}")
    for name in content:
        if name not in defaults:
            raise ConfigError(f"body: expected some of {', '.join(defaults)}, got {name!r:.80}")
    return {**defaults, **content}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has a key twice")
    return content


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _ids(name: str, values: Any, most: int) -> list[Any]:
    if not isinstance(values, list) or not all(map(is_id, values)):
        raise DataError(f"{name}: expected a list of ids (text or integers), got {values!r:.80}")
    _check_length(name, values, most)
    return values


def _check_length(name: str, values: list[Any], most: int) -> None:
    require(0 < len(values) <= most, name, f"from 1 to {most} of them", len(values))


def _check_k(k: Any, num_items: int, limits: Limits) -> None:
    require_k(k, min(num_items, limits.max_k))


def _check_items(rows: int, k: int, limits: Limits) -> None:
    require(rows * k <= limits.max_items, "k", f"at most {limits.max_items} items in an answer", f"{rows} rows of {k}")
