"""The columns of item features: what a run's learned projection was made for, found again in another run's features."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..files import replacing
from .side_information import CATEGORY, VECTOR, SideInformation

_ALIKE, _EVEN, _MOVED = 0.7, 1e-3, 0.1
"""A correlation of columns that explain half of each other, a spread that is none, and a tenth of a standard deviation,
or of the items in another bin."""

logger = logging.getLogger(__name__)


def write_columns(path: Path, columns: Sequence[str]) -> None:
    """Writes the names as JSON, by a rename."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(list(columns)) + "\n", encoding="utf-8")


def read_columns(path: Path) -> list[str]:
    """Reads what `write_columns` wrote; raises ``ConfigError``."""
    try:
        columns = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(columns, list) and all(isinstance(name, str) for name in columns):
            return columns
        error = "other JSON"
    except (OSError, ValueError, RecursionError) as raised:
        error = str(raised)
    raise ConfigError(f"{path}: expected the names of a run's item features, got: {error}")


def column_places(
    columns: Sequence[str], features: npt.NDArray[np.float32], places: npt.NDArray[np.int32], side: SideInformation
) -> npt.NDArray[np.int32]:
    """Where the ``columns`` of the features (V', P') of another run are among those of ``side``, (P',) int32, -1 for a
    value that no item has any more; ``places`` (V',) are its items here, -1 for those that are gone.

    Numbers that mean something else for the items of both, as where their mean or their bins have moved, are -1 too,
    which is logged. Raises ``ConfigError`` for vectors of another length, and for a column of vectors that has another
    meaning: over the items that have vectors in both, its correlation with the other run's is below `_ALIKE`, as of
    principal components that have turned.
    """
    where = {name: number for number, name in enumerate(side.columns)}
    found = np.array([where.get(name, -1) for name in columns], np.int32)
    lengths = [sum(name.startswith(VECTOR) for name in names) for names in (columns, side.columns)]
    if lengths[0] != lengths[1]:
        raise ConfigError(f"item_vectors: expected {lengths[0]} columns as in the run of from_run, got {lengths[1]}")
    known = np.flatnonzero(places >= 0)
    for number, name in enumerate(columns):
        if found[number] < 0 or (CATEGORY in name and not name.startswith(VECTOR)):
            continue
        if not name.startswith(VECTOR):
            moved = np.abs(features[known, number] - side.features[places[known], found[number]]).mean()
            if moved > _MOVED:
                logger.warning("the numbers of %r have moved: its projection starts anew", name)
                found[number] = -1
        else:
            # an item that today's file lacks has zeros
            there = known[side.features[places[known]].any(axis=1)]
            pair = features[there, number], side.features[places[there], found[number]]
            if len(there) and min(map(np.ptp, pair)) > _EVEN and np.corrcoef(*pair)[0, 1] < _ALIKE:
                raise ConfigError(
                    f"item_vectors: expected columns that mean what they did in the run of from_run, got another "
                    f"{name.lstrip(chr(0))} of {lengths[1]}"
                )
    return found
