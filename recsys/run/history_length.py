"""How many items of a history a model sees, where that is left to the log."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from ..protocol.splits import Split
from .config import TrainConfig

logger = logging.getLogger(__name__)

_SHARE, _STEP, _MOST = 0.9, 8, 200
"""Attention takes time and memory by the length's square, so that the longest histories are not worth a longer row."""


def with_length(config: TrainConfig, split: Split) -> TrainConfig:
    """``config`` with a ``max_length`` of 0 replaced by what nine in ten users do not exceed: the 90th percentile of
    the histories to be trained on, rounded up to a multiple of 8, at most 200."""
    if config.max_length:
        return config
    length = float(np.quantile(split.train.lengths, _SHARE))
    chosen = int(min(-(-length // _STEP) * _STEP, _MOST))
    logger.info("max_length: %d, as nine in ten users have at most %.0f events to train on", chosen, length)
    return dataclasses.replace(config, max_length=chosen)
