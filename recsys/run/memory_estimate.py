"""What a run will take of its device's memory, known before anything is made there."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from .config import TrainConfig
from .item_optimizer import ROW_RULES, draws_of, item_rule, log_item_rule

logger = logging.getLogger(__name__)

GIB = 2**30
_LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"  # of a container
_NO_NUMBER = 2**63  # bytes where nobody knows them

_MOMENTS = {"adamw": 2, "adam": 2, "adamax": 2, "rmsprop": 1, "sgd": 1}
_TABLE_STATES = {"rowwise_adagrad": 0, "partial_rowwise_adam": 1, "lazy_adam": 2}  # of the table's shape, float32
_SMALLER = "a smaller dim or batch_size takes less"
NEEDED = (
    "memory: expected enough for the model and a batch (dim, max_length, batch_size, num_negatives; of many items also "
    "item_optimizer, table_dtype, table_on)"
)
"""What a run that ran out of memory is told."""
_EXCHANGED = 6  # of each place and column of all devices: rows of inputs sent and got, hidden states, gradients
_BLOCK_NUMBERS = 16  # of each place and column that a block keeps for its backward pass, about


def estimate(config: TrainConfig, num_items: int, rule: str | None, *, num_features: int = 0) -> dict[str, int]:
    """Bytes of the device's memory by what they are for: the item table, its gradient, its optimizer, its averages,
    the features of items with the rows (V, D) float32 that they make, and a step's activations.

    ``rule`` moves the rows of the table that a step touches, of which each of ``config.devices`` has its part; None:
    all of it, on each device, by a gradient as the output's rows and one as the inputs'. What ``config.table_on`` puts
    into the host's memory is `host_bytes`.
    """
    num_items = num_items if rule is None else -(-num_items // config.devices)
    numbers = num_items * config.dim
    table = numbers * (2 if config.table_dtype == "bf16" else 4)
    places = -(-config.batch_size // config.devices) * config.max_length
    exchanged = 0 if rule is None or config.devices == 1 else _EXCHANGED * config.devices
    if rule is None:
        gradient, moments, touched = 2 * table, _MOMENTS[config.optimizer] * table, 0
    else:
        touched = -(-draws_of(config) // config.devices) + (2 if config.devices == 1 else 4) * places
        rows = 4 * config.dim * touched
        on_host = config.table_on == "host"
        gradient = (5 if on_host else 2) * rows  # with the rows of the steps before and after
        moments = 0 if on_host else 4 * numbers * _TABLE_STATES[rule]
        moments += 0 if rule == "lazy_adam" else 4 * num_items
        table = 0 if on_host else table
    return {
        "item table": table,
        "its gradient": gradient,
        "its optimizer": moments,
        "its average": table if config.ema_decay else 0,
        "item features": 4 * (num_items * (num_features + config.dim) + touched * num_features) if num_features else 0,
        "a batch": 4 * places * config.dim * (_BLOCK_NUMBERS * config.num_blocks + 4 + exchanged),
    }


def host_bytes(config: TrainConfig, num_items: int, rule: str) -> int:
    """Bytes of the item table and its moments in the host's memory, with ``table_on = host``."""
    return num_items * config.dim * ((2 if config.table_dtype == "bf16" else 4) + 4 * _TABLE_STATES[rule])


def host_memory() -> int:
    """Bytes of memory of this machine, or of the container; 2^63 where the system does not tell."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _NO_NUMBER
    told = [Path(limit).read_text().strip() for limit in _LIMITS if os.access(limit, os.R_OK)]
    return min([found if found > 0 else _NO_NUMBER, *(int(limit) for limit in told if limit.isdecimal())])


def require_memory(
    config: TrainConfig, num_items: int, memory: int, *, lends_host: bool, on_cpu: bool = False, num_features: int = 0
) -> None:
    """Logs the estimate of a run, and how its item table is trained.

    Raises ``ConfigError`` where ``memory``, the device's bytes or 2^63, cannot hold it, with what would fit, and for a
    table in the host's memory where that does not hold it, or unless the framework ``lends_host``. A device that is
    ``on_cpu`` has the host's.
    """
    if config.table_on == "host" and not lends_host:
        raise ConfigError(
            "table_on: expected device with JAX and on several devices, where kernels read their device's memory "
            "alone, got host"
        )
    rule = item_rule(config, num_items)
    log_item_rule(config, num_items)
    parts = estimate(config, num_items, rule, num_features=num_features)
    if on_cpu:
        memory, lends_host = host_memory(), False
    on_host = host_bytes(config, num_items, rule) if config.table_on == "host" and rule is not None else 0
    if on_host + (sum(parts.values()) if on_cpu and on_host else 0) > host_memory():
        raise ConfigError(
            f"memory: expected at most the host's {host_memory() / GIB:.1f} GiB, got about {on_host / GIB:.1f} of the "
            f"table; {_SMALLER}"
        )
    if sum(parts.values()) <= memory:
        of_all = "" if memory >= _NO_NUMBER else f" of the device's {memory / GIB:.1f} GiB"
        logger.info("memory: about %s%s", _told(parts), of_all)
        if on_host:
            logger.info("the host's memory: about %.1f GiB", on_host / GIB)
        return
    raise ConfigError(
        f"memory: expected at most the device's {memory / GIB:.1f} GiB, got about {_told(parts)}; "
        f"{', '.join(_advice(config, num_items, memory, rule, lends_host, num_features)) or _SMALLER}"
    )


def _advice(
    config: TrainConfig, num_items: int, memory: int, rule: str | None, lends_host: bool, num_features: int
) -> list[str]:
    """What would fit: another item optimizer, or else the table in the host's memory, which takes no features."""
    allowed = {name: each for name, each in ROW_RULES.items() if _can_take(config, num_items, name)}
    sizes = {
        name: sum(estimate(config, num_items, each, num_features=num_features).values())
        for name, each in allowed.items()
        if each != rule
    }
    if fitting := [f"item_optimizer = {name} takes {size / GIB:.1f}" for name, size in sizes.items() if size <= memory]:
        return fitting
    if not lends_host or num_features:
        return []
    other = replace(config, table_on="host", item_optimizer="auto")
    kept = [name for name, each in allowed.items() if rule in (each, None)]
    sizes = {name: sum(estimate(other, num_items, allowed[name]).values()) for name in kept}
    return [
        f"table_on = host with item_optimizer = {name} takes {size / GIB:.1f}, and of the host's memory "
        f"{host_bytes(other, num_items, allowed[name]) / GIB:.1f}"
        for name, size in sizes.items()
        if size <= memory
    ]


def _can_take(config: TrainConfig, num_items: int, name: str) -> bool:
    """Whether the run's other options allow this item optimizer."""
    try:
        return item_rule(replace(config, item_optimizer=name), num_items) is not None
    except ConfigError:
        return False


def _told(parts: Mapping[str, int]) -> str:
    each = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size >= 0.05 * GIB)
    return f"{sum(parts.values()) / GIB:.1f} GiB" + (f" ({each})" if each else "")
