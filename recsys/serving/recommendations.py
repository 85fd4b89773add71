"""Recommendations for users of a run's data or for sequences of a file, and the file they are written to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError
from ..files import replacing, usable
from ..protocol.list_metrics import NO_ITEM
from .requests import Requests, read_requests, user_requests
from .served_run import Load, ServedRun

LAST_SEEN = 3
"""Items of a history that a recommendation is shown with."""

_ENDINGS = (".json", ".parquet")


@dataclass(frozen=True)
class Recommendation:
    """The best items of one user, best first: their original ids, what to call them and their scores."""

    user: Any
    items: list[Any]
    names: list[str]
    scores: list[float]
    last_seen: list[str]


def recommend_run(
    run: ServedRun,
    load: Load,
    *,
    users: list[str],
    sequences: Path | None,
    k: int,
    filter_seen: bool,
    skip_unknown: bool,
    device: str,
) -> list[Recommendation]:
    """The top k items for users of the run's data, or for the sequences of a file."""
    requests = _requests(run, users, sequences, skip_unknown)
    top, scores = run.load(load, device).recommend(requests.histories, k, filter_seen=filter_seen)
    catalog, found = run.catalog, []
    for user, places, score, history in zip(requests.users, top, scores, requests.histories, strict=True):
        items = places[places != NO_ITEM]
        names, last = catalog.names(items), catalog.names(history[-LAST_SEEN:])
        found.append(Recommendation(user, catalog.labels[items].tolist(), names, score[: len(items)].tolist(), last))
    return found


def _requests(run: ServedRun, users: list[str], sequences: Path | None, skip_unknown: bool) -> Requests:
    if bool(users) == (sequences is not None):
        raise ConfigError(f"user: expected users or a file of sequences, got {'both' if users else 'neither'}")
    if sequences is not None:
        return read_requests(sequences, run.catalog, skip_unknown=skip_unknown)
    if skip_unknown:
        raise ConfigError("skip_unknown: only for sequences, got users")
    return user_requests(run.read_data()[0], users)


def check_output(path: Path) -> None:
    """Raises ``ConfigError`` for a file that `write_recommendations` could not write: before the work, not after it."""
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"output: expected a file name that ends in {' or '.join(_ENDINGS)}, got {path.name!r}")
    with usable("output", "a file that can be written"):
        if path.is_dir() or not path.parent.is_dir():
            raise ConfigError(f"output: expected a file in a folder that exists, got {path}")


def write_recommendations(rows: list[Recommendation], path: Path) -> None:
    """Writes ``user_id``, ``items`` and ``names``, a row a user, to a file that `check_output` has seen."""
    table = {
        "user_id": [row.user for row in rows],
        "items": [row.items for row in rows],
        "names": [row.names for row in rows],
    }
    with usable("output", "a file that can be written"), replacing(path) as temporary:
        if path.suffix.lower() == ".json":
            records = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
            temporary.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            pq.write_table(pa.table(table), temporary)
