"""What a run will take of its device's memory, known before anything is made there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from ..errors import ConfigError
from .config import TrainConfig
from .item_optimizer import ROW_RULES, draws_of, item_rule, log_item_rule

logger = logging.getLogger(__name__)

GIB = 2**30
_TOLD = GIB  # an estimate from which a run says it

_MOMENTS = {"adamw": 2, "adam": 2, "adamax": 2, "rmsprop": 1, "sgd": 1}
_BLOCK_NUMBERS = 16  # of each place and column that a block keeps for its backward pass, about


def estimate(config: TrainConfig, num_items: int, rule: str | None) -> dict[str, int]:
    """Bytes by what they are for: the item table, its gradient, its optimizer, its averages, and a step's activations.

    ``rule`` moves the rows of the table that a step touches; None: all of it, by a gradient as the output's rows and
    one as the inputs'.
    """
    numbers = num_items * config.dim
    table = numbers * (2 if config.table_dtype == "bf16" else 4)
    places = config.batch_size * config.max_length
    if rule is None:
        gradient, moments = 2 * table, _MOMENTS[config.optimizer] * table
    else:
        gradient = 2 * 4 * config.dim * (draws_of(config) + 2 * places)
        moments = 4 * {"rowwise_adagrad": 0, "partial_rowwise_adam": numbers, "lazy_adam": 2 * numbers}[rule]
        moments += 0 if rule == "lazy_adam" else 4 * num_items
    return {
        "item table": table,
        "its gradient": gradient,
        "its optimizer": moments,
        "its average": table if config.ema_decay else 0,
        "a batch": 4 * places * config.dim * (_BLOCK_NUMBERS * config.num_blocks + 4),
    }


def require_memory(config: TrainConfig, num_items: int, memory: int) -> None:
    """Logs the estimate of a large run, and how its item table is trained.

    Raises ``ConfigError`` where ``memory``, the device's bytes, cannot hold it, with the item optimizers that would
    fit.
    """
    rule = item_rule(config, num_items)
    log_item_rule(config, num_items)
    parts = estimate(config, num_items, rule)
    total = sum(parts.values())
    if total <= memory:
        if total >= _TOLD:
            logger.info("memory: about %s", _told(parts))
        return
    fitting = {
        name: sum(estimate(config, num_items, each).values())
        for name, each in ROW_RULES.items()
        if each != rule and _can_take(config, num_items, name)
    }
    advice = [f"item_optimizer = {name} takes {size / GIB:.1f}" for name, size in fitting.items() if size <= memory]
    raise ConfigError(
        f"memory: expected at most the device's {memory / GIB:.1f} GiB, got about {_told(parts)}; "
        f"{', '.join(advice) or 'a smaller dim or batch_size takes less'}"
    )


def _can_take(config: TrainConfig, num_items: int, name: str) -> bool:
    """Whether the run's other options allow this item optimizer."""
    try:
        return item_rule(replace(config, item_optimizer=name), num_items) is not None
    except ConfigError:
        return False


def _told(parts: Mapping[str, int]) -> str:
    each = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size >= 0.05 * GIB)
    return f"{sum(parts.values()) / GIB:.1f} GiB" + (f" ({each})" if each else "")
