"""The metrics of a run's model on held-out events, of all of them and of their segments, and of baselines on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..baselines.choices import baseline_metrics, check_baselines
from ..data.interactions import Interactions
from ..data.ragged import Ragged
from ..errors import ConfigError
from ..protocol.cutoffs import parse_cutoffs
from ..protocol.metrics import Ranks
from ..protocol.popularity import item_counts
from ..protocol.segments import HISTORY, ITEM, check_by, segment_metrics
from ..protocol.splits import Split
from ..run.config import TrainConfig
from ..run.experiment import held_out, split_events
from .served_run import Load, ServedModel, ServedRun

BY, BASELINES = "by", "baselines"
"""Keys of the metrics by segment and of those of baselines, beside the model's on all targets."""


def require_measurable(run: ServedRun, part: str, by: Sequence[str] = (), baselines: Sequence[str] = ()) -> None:
    """Raises ``ConfigError`` for other parts than "test" and "valid", one that the run did not hold out, unknown
    segments, and baselines that `check_baselines` refuses."""
    if part not in ("test", "valid"):
        raise ConfigError(f"part: expected test or valid, got {part}")
    run.require_part(part)
    check_by(by)
    check_baselines(baselines)


def with_given(config: TrainConfig, **options: Any) -> TrainConfig:
    """``config`` with those ``options`` that are not None."""
    return dataclasses.replace(config, **{name: value for name, value in options.items() if value is not None})


def measured(
    run: ServedRun,
    model: Callable[[], ServedModel],
    config: TrainConfig,
    interactions: Interactions,
    trained_on: Callable[[], tuple[Interactions, Split]],
    part: str,
    by: Sequence[str] = (),
    baselines: Sequence[str] = (),
) -> dict[str, Any]:
    """Metrics of the ``model()`` of a ``run`` on the ``part`` "test" or "valid" of ``interactions``, as ``config``
    splits and ranks them; ``trained_on()`` are the events that the model knows, and their split.

    With ``by``, of "history" and "item", they have under `BY` what `segment_metrics` finds from the same ranks. With
    ``baselines`` they have under `BASELINES` what `baseline_metrics` finds on the same targets, after whole histories,
    of baselines of the model's training events.
    """
    split = split_events(config, interactions)
    run.tell_others(interactions, split)
    histories, targets = held_out(config, split, part)
    cutoffs = parse_cutoffs(config.metrics_at)
    known = trained_on() if baselines or ITEM in by else None
    added: dict[str, Any] = {}
    if baselines:  # first, as what is wrong with them is soon found
        assert known is not None
        added[BASELINES] = _baselines(config, *known, baselines, histories, targets)
    ranks: list[Ranks] = []
    metrics = model().evaluate(histories, targets, split, config=config, take_ranks=ranks.append)
    if by:
        events = {HISTORY: histories.lengths}
        if known is not None:
            events[ITEM] = item_counts(known[1].train, known[1].num_items)[targets]
        added[BY] = segment_metrics(ranks[0], {name: events[name] for name in by}, cutoffs)
    return {**metrics, **added}


def _baselines(
    config: TrainConfig,
    known: Interactions,
    split: Split,
    names: Sequence[str],
    histories: Ragged,
    targets: npt.NDArray[np.int32],
) -> dict[str, dict[str, float]]:
    """`baseline_metrics` of baselines of the training events of a ``split`` of ``known``, as ``config`` measures."""
    history, target = held_out(config, split, "valid")  # as many as a validation of the run ranks
    split = dataclasses.replace(split, valid_history=history, valid_target=target)
    options: dict[str, Any] = {"filter_seen": config.filter_seen, "seed": config.seed}
    cutoffs = parse_cutoffs(config.metrics_at)
    return baseline_metrics(names, known, split, histories, targets, cutoffs=cutoffs, **options)


def evaluate_run(
    run: ServedRun,
    load: Load,
    config: TrainConfig,
    part: str,
    by: Sequence[str] = (),
    baselines: Sequence[str] = (),
) -> dict[str, Any]:
    """`measured` metrics of the run's weights on its data, or on those given in their place. The events that the model
    knows are those that the run was trained on, if its data are where they were, else those given."""
    require_measurable(run, part, by, baselines)
    interactions = run.read_events()
    load_model, trained_on = partial(run.load, load, config.device), partial(run.trained_on, interactions)
    return measured(run, load_model, config, interactions, trained_on, part, by, baselines)
