"""A run in memory with all that its answers need."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..data.catalog import Catalog
from ..data.interactions import Interactions
from ..data.ragged import Ragged
from ..errors import ConfigError, DataError
from ..protocol.popularity import PopularityBaseline
from ..run.progress import TrainResult
from ..run.weights_file import read_config
from ..serving.served_run import Load, ServedModel, ServedRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run's ``model`` and ``catalog``, what there is to say ``about`` it, and the ``events`` of users whom it can
    recommend to by their ids, with the ``popularity`` of items among them; None where they could not be read."""

    name: str
    model: ServedModel
    catalog: Catalog
    about: dict[str, Any]
    events: Interactions | None = None
    popularity: PopularityBaseline | None = None

    def users(self) -> Interactions:
        """The events; raises ``DataError`` where the run's data could not be read."""
        if self.events is None:
            raise DataError(_NO_EVENTS)
        return self.events

    def popular(self) -> PopularityBaseline:
        """How often items occur in training; raises ``DataError`` where its training part could not be read."""
        if self.popularity is None:
            raise DataError(_NO_POPULARITY)
        return self.popularity


_NO_EVENTS = "users: expected a run whose events can be read, got one whose events have gone; sequences need none"
_NO_POPULARITY = "unknown_users: expected a run whose training events can be read, got one whose events have gone"


def load_run(
    path: Path, load: Load, *, framework: str, data: str | None = None, device: str = "auto", batch_rows: int = 1
) -> LoadedRun:
    """The run in the folder ``path``, ready to answer: its first calls, of up to ``batch_rows`` rows, are made here.

    ``data`` is where its events are now. A run whose events cannot be read serves sequences and items, with a warning.
    Raises ``ConfigError`` and ``DataError`` where it cannot be served.
    """
    began = time.perf_counter()
    run = ServedRun.open(path, data)
    model = run.load(load, device)
    catalog = run.catalog
    catalog.ids(())  # of text, the table in which all are looked up
    events = popularity = None
    try:
        events = dataclasses.replace(run.read_events(), source=path.name)  # messages go to strangers
        _ = events.offsets, events.user_places  # made here, not at a request
    except (ConfigError, DataError) as error:
        events = None
        logger.warning("%s: users are not served by their ids: %s", path.name, error)
    if events is not None:
        try:
            popularity = PopularityBaseline(run.train_part(events), len(catalog))
        except (ConfigError, DataError) as error:
            logger.warning("%s: unknown users are not served by popularity: %s", path.name, error)
    _warm(model, len(catalog), batch_rows)
    about = _about(run, framework) | {"users": 0 if events is None else events.num_users}
    logger.info(
        "%s: %s, %d items, loaded in %.1f s", path.name, about["model"], len(catalog), time.perf_counter() - began
    )
    return LoadedRun(path.name, model, catalog, about, events, popularity)


def _about(run: ServedRun, framework: str) -> dict[str, Any]:
    """What a stranger wants to know of a run; no path of the machine is told."""
    files = run.files
    result = TrainResult.read(files.result) if files.result.is_file() else None
    data = run.config.data
    return {
        "run": files.path.name,
        "framework": framework,
        "model": read_config(files.best_weights).model,
        "items": len(run.catalog),
        "data": files.events.name if data == str(files.events) else Path(data).name,
        "epochs": None if result is None else len(result.losses),
        "best_epoch": None if result is None else result.best_epoch,
        "test": {} if result is None else {name: at for name, at in result.test.items() if math.isfinite(at)},
        "loaded": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _warm(model: ServedModel, num_items: int, rows: int) -> None:
    """Calls the model with each number of rows that it is called with later: what is compiled or allocated at a first
    call is there when requests come."""
    k = min(16, num_items)
    height = 1
    while height <= rows:
        histories = Ragged.from_rows([np.zeros(1, np.int32)] * height)
        model.recommend(histories, k, filter_seen=True)
        height *= 2
