"""Yesterday's and today's log of a day, cut from a data set by time, and what today's holds out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from cce_minus.recsys import Interactions, Ragged, Split, TrainConfig, prepare_data
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.ragged import offsets_of

from .cells import Day


def write_logs(data: Path, day: Day, folder: Path) -> tuple[Path, Path]:
    """Writes the events of the file ``data`` before the ``day`` and those up to its end; returns both files. Raises
    ``ValueError`` where the day brings none."""
    table = pq.read_table(data)
    times = table["timestamp"].to_numpy()
    paths = folder / "yesterday.parquet", folder / "today.parquet"
    counts: list[int] = []
    for path, end in zip(paths, (day.begin, day.end), strict=True):
        events = table.filter(pa.array(times < end))
        counts.append(len(events))
        pq.write_table(events, path)
    if counts[0] == 0 or counts[0] == counts[1]:
        raise ValueError(f"{data}: expected events before and on {day}, got {counts[0]} and {counts[1] - counts[0]}")
    return paths


@dataclass(frozen=True, eq=False)
class LogData:
    """A log as runs of a configuration see it."""

    interactions: Interactions
    split: Split

    @classmethod
    def of(cls, config: TrainConfig) -> LogData:
        return cls(*prepare_data(config))

    @property
    def catalog(self) -> Catalog:
        return Catalog.of(self.interactions)

    def active(self, since: int) -> npt.NDArray[np.bool_]:
        """Which rows of the test part (rows,) are of users with an event at ``since`` or later: the others' held-out
        items are those of the log before."""
        offsets, times = self.interactions.offsets, self.interactions.time
        is_tested = np.diff(offsets) >= 3  # as `leave_one_out` has it
        return times[offsets[1:] - 1][is_tested] >= since


def in_items_of(
    places: npt.NDArray[np.int32], history: Ragged, target: npt.NDArray[np.int32]
) -> tuple[Ragged, npt.NDArray[np.int32]]:
    """Rows to rank by a model whose items are at ``places`` (V,), -1 where it does not have them: histories without
    these, and rows whose target or whole history is unknown left out."""
    row = np.repeat(np.arange(len(history)), history.lengths)
    found = places[history.values]
    lengths = np.bincount(row[found >= 0], minlength=len(history))
    is_ranked = (places[target] >= 0) & (lengths > 0)
    return Ragged(found[(found >= 0) & is_ranked[row]], offsets_of(lengths[is_ranked])), places[target[is_ranked]]
