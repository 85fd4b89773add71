"""The metrics of a run's model on held-out events, of all of them and of their segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.interactions import Interactions
from ..errors import ConfigError
from ..protocol.cutoffs import parse_cutoffs
from ..protocol.metrics import Ranks
from ..protocol.popularity import item_counts
from ..protocol.segments import HISTORY, ITEM, check_by, segment_metrics
from ..run.config import TrainConfig
from ..run.experiment import held_out, split_events
from .served_run import Load, ServedModel, ServedRun

BY = "by"
"""Key of the metrics by segment, beside those of all targets."""


def require_measurable(run: ServedRun, part: str, by: Sequence[str] = ()) -> None:
    """Raises ``ConfigError`` for other parts than "test" and "valid", one that the run did not hold out, and unknown
    segments."""
    if part not in ("test", "valid"):
        raise ConfigError(f"part: expected test or valid, got {part}")
    run.require_part(part)
    check_by(by)


def measured(
    run: ServedRun,
    model: Callable[[], ServedModel],
    config: TrainConfig,
    interactions: Interactions,
    part: str,
    by: Sequence[str],
    item_events: Callable[[], npt.NDArray[np.integer]],
) -> dict[str, Any]:
    """Metrics of the ``model()`` of a ``run`` on the ``part`` "test" or "valid" of ``interactions``, as ``config``
    splits and ranks them.

    With ``by``, of "history" and "item", they have under `BY` what `segment_metrics` finds from the same ranks;
    ``item_events()`` are the training events of each item (V,).
    """
    split = split_events(config, interactions)
    run.tell_others(interactions, split)
    histories, targets = held_out(config, split, part)
    ranks: list[Ranks] = []
    metrics = model().evaluate(histories, targets, split, config=config, take_ranks=ranks.append)
    if not by:
        return metrics
    events = {HISTORY: lambda: histories.lengths, ITEM: lambda: item_events()[targets]}
    of_each = {name: events[name]() for name in by}
    return {**metrics, BY: segment_metrics(ranks[0], of_each, parse_cutoffs(config.metrics_at))}


def evaluate_run(run: ServedRun, load: Load, config: TrainConfig, part: str, by: Sequence[str] = ()) -> dict[str, Any]:
    """`measured` metrics of the run's weights on its data, or on those given in their place. An item's events are those
    that the run was trained on, if its data are where they were, else those given."""
    require_measurable(run, part, by)
    interactions = run.read_events()
    load_model = partial(run.load, load, config.device)

    def item_events() -> npt.NDArray[np.integer]:
        return item_counts(run.train_part(interactions), len(run.catalog))

    return measured(run, load_model, config, interactions, part, by, item_events)
