"""Items and users that are to leave a run's folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data.catalog import Catalog
from ..errors import ConfigError, DataError
from ..files import replacing, usable
from ..run.config import TrainConfig
from ..run.saved_options import left_of
from ..run.tensor_file import Stored, open_tensor_file, write_tensor_file
from ..run.weights_file import OF_ITEMS
from .served_run import ServedRun

Ids = Sequence[str | int]


def forget(run: ServedRun, *, items: Ids = (), users: Ids = ()) -> list[str]:
    """Removes ``items`` and ``users``, by their original ids, from the files of a run, and tells what was removed.

    An item leaves the catalog, the weights and the log, if the run holds one; so do the checkpoints, which are of all
    items: the run serves the others, and cannot be resumed. A user is known to a run by its log alone. Weights that
    have learnt from their events stay as they are: who must not have learnt from them trains again without. Raises
    ``DataError`` for ids that the run does not know, and ``ConfigError`` for users of a run without a log, for all
    items, and for a folder that cannot be written.
    """
    if not items and not users:
        raise ConfigError("items: expected items or users to forget, got none")
    is_left = _left(run.catalog, items)
    told = []
    with usable("run", "a folder that can be written"):
        if run.files.holds_log(TrainConfig.read(run.files.config)):
            told.append(f"{run.files.events.name}: {_forget_events(run, items, users)} events removed")
        elif users:
            raise ConfigError(
                f"users: expected a run that holds its log ({run.files.events.name}), got one that knows no users; "
                f"take them out of the log itself, {run.config.data}"
            )
        if items:
            for folder in sorted(run.files.path.glob("*-checkpoints")):
                shutil.rmtree(folder)
                told.append(f"{folder.name}: removed; the run cannot be resumed")
            _forget_rows(run, is_left)
            told.append(f"{run.files.catalog.name}, {run.files.best_weights.name}: {(~is_left).sum()} items removed")
    return [*told, "the weights have learnt from what is removed; a training without it gives others"]


def _left(catalog: Catalog, gone: Ids) -> npt.NDArray[np.bool_]:
    ids = catalog.ids(gone)
    if (ids < 0).any():
        unknown = next(label for label, item in zip(gone, ids, strict=True) if item < 0)
        raise DataError(f"items: expected items of the catalog ({len(catalog)} of them), got {unknown!r}")
    is_left = np.ones(len(catalog), np.bool_)
    is_left[ids] = False
    if not is_left.any():
        raise ConfigError("items: expected some that are left, got all of the catalog")
    return is_left


def _forget_events(run: ServedRun, items: Ids, users: Ids) -> int:
    """Removes the events of ``items`` and of ``users``, and counts them; those that the run's filters leave out go with
    them."""
    path, table = run.files.events, pq.read_table(run.files.events)
    item, user = (table[column].cast(pa.large_string()) for column in (run.config.item_column, run.config.user_column))
    known = set(user.unique().to_pylist())
    if unknown := [label for label in users if str(label) not in known]:
        raise DataError(f"users: expected users of {path} ({len(known)} of them), got {unknown[0]!r}")
    is_gone = _among(item, items) | _among(user, users)
    # of what is left, filters by numbers of events would leave out who has fewer now
    events = run.read_events()
    is_filtered = ~(_among(item, run.catalog.labels.tolist()) & _among(user, events.user_labels.tolist()))
    if (is_gone | is_filtered).all():
        raise ConfigError("users: expected some that are left, got all of the log")
    config = TrainConfig.read(run.files.config)
    unfiltered = dataclasses.replace(config, min_item_events=1, min_user_events=1)
    with replacing(path) as temporary, replacing(run.files.config) as changed:
        pq.write_table(table.filter(pa.array(~(is_gone | is_filtered))), temporary)
        changed.write_text(unfiltered.to_json(left_of(run.files.config)), encoding="utf-8")
    return int(is_gone.sum())


def _among(column: pa.ChunkedArray, labels: Ids) -> npt.NDArray[np.bool_]:
    texts = pa.array([str(label) for label in labels], pa.large_string())
    return pc.is_in(column, value_set=texts).to_numpy()  # pyright: ignore


def _forget_rows(run: ServedRun, is_left: npt.NDArray[np.bool_]) -> None:
    """Keeps the rows of the items that are left: both files are there before either takes its place."""
    metadata, tensors = open_tensor_file(run.files.best_weights)
    config = json.loads(metadata["config"]) | {"num_items": int(is_left.sum())}
    left = {name: _rows(tensor, is_left) if name in OF_ITEMS else tensor for name, tensor in tensors.items()}
    titles = run.catalog.titles
    kept = None if titles is None else [title for title, is_kept in zip(titles, is_left, strict=True) if is_kept]
    with replacing(run.files.catalog) as catalog, replacing(run.files.best_weights) as weights:
        write_tensor_file(weights, left, {**metadata, "config": json.dumps(config)})
        Catalog(run.catalog.labels[is_left], kept).write(catalog)


def _rows(tensor: Stored, is_left: npt.NDArray[np.bool_]) -> Stored:
    def pieces() -> Iterator[np.ndarray]:
        first = 0
        for piece in tensor.pieces():
            yield piece[is_left[first : first + len(piece)]]
            first += len(piece)

    return Stored(tensor.dtype, (int(is_left.sum()), *tensor.shape[1:]), pieces)
