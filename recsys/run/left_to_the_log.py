"""Options that a run may leave to its log, resolved once and stored with the others: the users of a batch, the
patience, the length of histories and the negatives."""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np

from ..protocol.row_lengths import trainable_rows
from ..protocol.splits import Split
from .config import TrainConfig
from .experiment import held_out, mean_places, mean_positions
from .item_optimizer import LARGE, ROW_RULES

logger = logging.getLogger(__name__)


def resolved(config: TrainConfig, split: Split) -> TrainConfig:
    """``config`` with what it leaves to the log: a ``batch_size``, ``patience`` or ``max_length`` of 0, and
    ``negatives`` "auto"."""
    config = config if config.batch_size else _with_batch(config, split)
    config = config if config.patience or not config.has_validation else _with_patience(config, split)
    config = config if config.max_length else _with_length(config, split)
    return _with_negatives(config, split) if config.negatives == "auto" else config


def left_names(asked: TrainConfig, config: TrainConfig) -> tuple[str, ...]:
    """The options that ``asked`` left to the log, of which ``config`` is `resolved`."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    return tuple(name for name in names if getattr(asked, name) != getattr(config, name))


_LARGEST_BATCH, _SMALLEST_BATCH, _LEAST_BATCHES = 128, 16, 32


def _with_batch(config: TrainConfig, split: Split) -> TrainConfig:
    """With 128 users a batch; of few users the power of two from 16 on that leaves 32 batches in an epoch, as so few
    steps would train too little before the epochs run out."""
    most = len(trainable_rows(split.train)) // _LEAST_BATCHES
    chosen = max(min(2 ** (max(most, 1).bit_length() - 1), _LARGEST_BATCH), _SMALLEST_BATCH)
    logger.info("batch_size: %d", chosen)
    return dataclasses.replace(config, batch_size=chosen)


_PATIENCE, _MOST_PATIENCE, _MANY_USERS = 10, 50, 10_000


def _with_patience(config: TrainConfig, split: Split) -> TrainConfig:
    """With 10 validations; of fewer than 10,000 users as many times more as the standard error of their mean is larger,
    at most 50: what is not noise shows later."""
    users = len(held_out(config, split, "valid")[1])
    noise = math.sqrt(_MANY_USERS / max(min(users, _MANY_USERS), 1))
    return dataclasses.replace(config, patience=min(math.ceil(_PATIENCE * noise), _MOST_PATIENCE))


_SHARE_OF_USERS, _STEP, _LONGEST = 0.9, 8, 200
"""Attention takes time and memory by the length's square: the longest histories are not worth longer rows."""


def _with_length(config: TrainConfig, split: Split) -> TrainConfig:
    """With what nine in ten users do not exceed: the 90th percentile of the histories to be trained on, rounded up to a
    multiple of 8, at most 200."""
    length = float(np.quantile(split.train.lengths, _SHARE_OF_USERS))
    chosen = int(min(-(-length // _STEP) * _STEP, _LONGEST))
    logger.info("max_length: %d, as nine in ten users have at most %.0f events to train on", chosen, length)
    return dataclasses.replace(config, max_length=chosen)


_SHARE_OF_MODEL = 0.2
_FEWEST, _MOST = 256, 65536


def _with_negatives(config: TrainConfig, split: Split) -> TrainConfig:
    """With as many uniform negatives as cost a fifth of the model's own time, a power of two; with all items where
    there are no more than that, unless the item table moves by rows, of which a step then draws at most half."""
    positions = mean_positions(config, split)
    within = int(
        _SHARE_OF_MODEL * model_ms(config, mean_places(config, split)) / (negative_ms(config.dim) * max(positions, 1.0))
    )
    by_rows = config.item_optimizer in ROW_RULES or split.num_items >= LARGE
    if split.num_items <= within and not by_rows:
        logger.info("negatives: all of %d items, as they cost little beside the model", split.num_items)
        return dataclasses.replace(config, negatives="all")
    most, reason = min(max(within, _FEWEST), _MOST), "for about a fifth of the model's time"
    if by_rows:
        groups = -(-config.batch_size * config.max_length // config.group_size)
        half = split.num_items // 2 // groups
        if half < most:
            most, reason = half, "as a step whose rows move alone draws at most half of them; fewer places draw more"
    chosen = 2 ** (max(most, 1).bit_length() - 1)
    level = logging.WARNING if chosen < _FEWEST else logging.INFO
    logger.log(level, "negatives: %d of %d items, %s", chosen, split.num_items, reason)
    return dataclasses.replace(config, negatives="uniform", num_negatives=chosen)


def model_ms(config: TrainConfig, places: float) -> float:
    """Milliseconds of a step of so many ``places`` without loss and item table on an H100 in bfloat16: fitted to the
    steps of benchmarks/results/study.csv (width 128, two blocks), with the blocks' and the width's share taken as
    proportional."""
    return (1 + config.num_blocks) / 3 * 0.517 + config.num_blocks / 2 * config.dim / 128 * 7.01e-5 * places


def negative_ms(dim: int) -> float:
    """Milliseconds that one more negative of all positions costs a position there: 8 D operations."""
    return 8 * dim * 4.35e-12
