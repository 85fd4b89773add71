"""The data and the loss of a run, from its configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.all_items import with_catalog, with_items
from ..data.catalog import Catalog, titled_as
from ..data.datasets import load_dataset
from ..data.filters import drop_repeated, keep_frequent, keep_rated
from ..data.interactions import Interactions, read_titles
from ..data.ragged import Ragged, take_ranges
from ..files import usable
from ..protocol.batches import Batch, mean_targets, train_batches
from ..protocol.cutoffs import parse_cutoffs
from ..protocol.masked_batches import masked_batches, mean_masked
from ..protocol.popularity import PopularityBaseline, item_counts
from ..protocol.row_lengths import Block, choose_row_lengths, epoch_blocks, mean_row_length, trainable_rows
from ..protocol.splits import Split, make_split
from .config import TrainConfig
from .run_directory import RunDirectory

RANKED_AT_ONCE = 512
"""Users at least; with few, the host starts kernels more slowly than a GPU runs them."""


def prepare_data(config: TrainConfig, catalog: Path | None = None) -> tuple[Interactions, Split]:
    """Load, filter and split the data set that ``config`` names (`read_events`, `split_events`); raises `DataError`
    before any training."""
    interactions = read_events(config, catalog)
    return interactions, split_events(config, interactions)


def read_events(config: TrainConfig, catalog: Path | None = None) -> Interactions:
    """Load and filter the data set that ``config`` names; raises `DataError`.

    Repeated events are left out first, if asked for, then ratings are filtered, then items and users by their events
    (`keep_frequent`); the items of a file join the catalog, and with ``gone_items = keep`` those of ``catalog``, the
    run's own file where it has one, else the earlier run's. Without a file of titles, items have those of there.
    """
    with usable("data", "files that can be read"):
        interactions = load_dataset(
            config.data,
            user_column=config.user_column,
            item_column=config.item_column,
            time_column=config.time_column,
            rating_column=config.rating_column,
            with_ratings=config.min_rating is not None,
            titles=config.titles,
            title_column=config.title_column,
            drop_missing=config.drop_missing,
        )
    if config.drop_duplicates:
        interactions = drop_repeated(interactions)
    if config.min_rating is not None:
        interactions = keep_rated(interactions, config.min_rating)
    interactions = keep_frequent(
        interactions, min_item_events=config.min_item_events, min_user_events=config.min_user_events
    )
    if config.items is not None:
        with usable("items", "a file that can be read"):
            interactions = with_items(interactions, config.items, item_column=config.item_column)
            if config.titles is not None:
                interactions = read_titles(interactions, config.titles, config.item_column, config.title_column)
    if config.gone_items == "keep":
        assert config.from_run is not None
        interactions = with_catalog(interactions, Catalog.read(catalog or RunDirectory.of(config.from_run).catalog))
        if config.titles is not None:
            with usable("titles", "a file that can be read"):
                interactions = _titled(interactions, config)
    if config.from_run is not None and interactions.item_titles is None:
        return titled_as(interactions, Catalog.read(catalog or RunDirectory.of(config.from_run).catalog))
    return interactions


def _titled(interactions: Interactions, config: TrainConfig) -> Interactions:
    """With the titles of the file; items that it lacks keep theirs."""
    assert config.titles is not None
    titled = read_titles(interactions, config.titles, config.item_column, config.title_column)
    before, now = interactions.item_titles, titled.item_titles
    if before is None or now is None:
        return titled
    labels = interactions.item_labels.tolist()
    kept = [old if new == str(label) else new for label, old, new in zip(labels, before, now, strict=True)]
    return replace(titled, item_titles=kept)


def split_events(config: TrainConfig, interactions: Interactions) -> Split:
    """The parts that ``config`` trains, validates and tests on; raises `DataError` where one comes out empty."""
    options: dict[str, Any] = {"train_on_valid": config.train_on_valid} if config.has_test else {}
    if config.split in ("global-temporal", "sessions"):
        options |= {"quantile": config.split_quantile, "valid_fraction": config.valid_fraction}
    return make_split(config.split, interactions, **options)


def held_out(config: TrainConfig, split: Split, part: str) -> tuple[Ragged, npt.NDArray[np.int32]]:
    """The histories and targets of the ``part`` "valid" or "test" that ``config`` ranks: all, or ``test_users`` of them
    chosen by the seed; where both parts have the same users, the same of both."""
    history, target = {
        "valid": (split.valid_history, split.valid_target),
        "test": (split.test_history, split.test_target),
    }[part]
    if not 0 < config.test_users < len(target):
        return history, target
    # a key of its own: [seed, 0] would be that of epoch 0, which pads a seed with zeros
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_RANKED_USERS,)))
    chosen = np.sort(rng.choice(len(target), config.test_users, replace=False))
    return take_ranges(history.values, history.offsets[chosen], history.offsets[chosen + 1]), target[chosen]


_RANKED_USERS = 1


def popularity_metrics(config: TrainConfig, split: Split) -> dict[str, dict[str, float]]:
    """What ranking by popularity reaches on the parts "valid" and "test", as ``config`` measures; of an empty part
    nothing."""
    baseline, found = PopularityBaseline(split.train, split.num_items), {}
    for part in ("valid", "test"):
        history, target = held_out(config, split, part)
        seen = history if config.filter_seen else None
        found[part] = baseline.metrics(target, parse_cutoffs(config.metrics_at), seen) if len(target) else {}
    return found


def evaluation_options(config: TrainConfig, split: Split) -> dict[str, Any]:
    """The options of both frameworks' ``evaluate`` that ``config`` and the training part decide, by name."""
    return {
        "cutoffs": parse_cutoffs(config.metrics_at),
        "filter_seen": config.filter_seen,
        "information": split.information,
        "batch_size": max(config.batch_size, RANKED_AT_ONCE),
    }


def epoch_batches(config: TrainConfig, split: Split, epoch: int, start_step: int = 0) -> Iterator[Batch]:
    """The training batches of one epoch, from batch ``start_step`` on: `masked_batches` for BERT4Rec, `train_batches`
    for the causal models; `num_batches` of either, and the same in both frameworks."""
    sizes = {"batch_size": config.batch_size, "max_length": config.max_length, "accumulate": config.accumulate}
    order = {"seed": config.seed, "epoch": epoch, "start_step": start_step, "row_lengths": row_lengths(config, split)}
    if config.model == "bert4rec":
        return masked_batches(split.train, **sizes, **order, mask_probability=config.mask_probability)
    return train_batches(split.train, **sizes, **order)


def blocks_of_epoch(config: TrainConfig, split: Split, epoch: int) -> list[Block]:
    """The users of `epoch_batches`."""
    sizes = {"batch_size": config.batch_size, "accumulate": config.accumulate, "ahead": _ahead(config)}
    return epoch_blocks(split.train, **sizes, row_lengths=row_lengths(config, split), seed=config.seed, epoch=epoch)


def row_lengths(config: TrainConfig, split: Split) -> tuple[int, ...]:
    """The lengths of the rows of `epoch_batches`, ascending up to ``max_length``: more than that one with
    ``group_by_length`` where histories differ (`choose_row_lengths`). A table in the host's memory has one: the rows of
    the next step are read ahead, in a shape that does not change."""
    if not config.group_by_length or config.table_on == "host":
        return (config.max_length,)
    return choose_row_lengths(_inputs(config, split), config.max_length)


def mean_places(config: TrainConfig, split: Split) -> float:
    """Mean number of places in a batch of `epoch_batches`, with or without an item."""
    return config.batch_size * mean_row_length(_inputs(config, split), row_lengths(config, split))


def weighing_targets(config: TrainConfig, split: Split) -> float | None:
    """The positions with a target of a mean batch, by which the mean loss of a batch is weighed: so many times the
    batch's own. Rows of several lengths have very different numbers of them, and each position is to count alike; with
    one length batches count alike, and there is None."""
    return mean_positions(config, split) if len(row_lengths(config, split)) > 1 else None


def longest_batch(config: TrainConfig, split: Split) -> Batch:
    """One of the batches of the first epoch with the longest rows."""
    longest = max(blocks_of_epoch(config, split, 0), key=lambda block: block.length)
    return next(epoch_batches(config, split, 0, longest.first))


def _inputs(config: TrainConfig, split: Split) -> npt.NDArray[np.int64]:
    """Inputs of each user that is trained on."""
    return split.train.lengths[trainable_rows(split.train)] - _ahead(config)


def _ahead(config: TrainConfig) -> int:
    return 0 if config.model == "bert4rec" else 1


def mean_positions(config: TrainConfig, split: Split) -> float:
    """Mean number of positions with a target in a batch of `epoch_batches`."""
    sizes = {"batch_size": config.batch_size, "max_length": config.max_length}
    if config.model == "bert4rec":
        return mean_masked(split.train, **sizes, mask_probability=config.mask_probability)
    return mean_targets(split.train, **sizes)


def loss_options(config: TrainConfig, split: Split) -> dict[str, Any]:
    """What the training loss is made of: ``config``'s options of the loss by name, and what they leave to the data.

    ``item_counts`` (V,) int64 come from the training part alone. Sizes of 0 become 2 sqrt(N), the choice of SCE's
    authors (arXiv 2409.18721), for the N positions with a target of a device's part of a mean batch: a number of the
    run, so that shapes never change.
    """
    balanced = max(1, round(2 * math.sqrt(mean_positions(config, split) / config.devices)))
    return {
        "loss": config.loss,
        "negatives": config.negatives,
        "item_counts": item_counts(split.train, split.num_items),
        "num_negatives": config.num_negatives,
        "pool_size": config.pool_size,
        "popularity_power": config.popularity_power,
        "frequency_rate": config.frequency_rate,
        "logq_correction": config.logq_correction,
        "group_size": config.group_size,
        "shuffle_rows": config.shuffle_rows,
        "gbce_t": config.gbce_t,
        "n_buckets": config.n_buckets or balanced,
        "bucket_size_x": config.bucket_size_x or balanced,
        "bucket_size_y": config.bucket_size_y,
        "mix_x": config.mix_x,
        "impl": config.impl,
    }
