"""How a run's item table is trained: with everything else, or only the rows that a step touches."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..option_checks import require_defaults

if TYPE_CHECKING:
    from .config import TrainConfig

logger = logging.getLogger(__name__)

ROW_RULES = {
    "rowwise-adagrad": "rowwise_adagrad",
    "partial-rowwise-adam": "partial_rowwise_adam",
    "lazy-adam": "lazy_adam",
}
"""The optimizers that move rows alone, by the names that a command takes; rules as the kernels name them."""

ITEM_OPTIMIZERS = ("auto", "adamw", *ROW_RULES)

TABLE_DTYPES = ("fp32", "bf16")

TABLE_PLACES = ("device", "host")

_OWN = {"item_learning_rate": 0, "table_dtype": "fp32", "table_on": "device"}
"""Options, with their defaults, that only a table with an optimizer of its own takes."""

LARGE = 10_000_000
"""Items from which ``auto`` moves rows alone: the gradient and the moments of so many cost more than all else."""

_LARGE_RULE = "partial-rowwise-adam"
_LOSSES = ("softmax", "bce", "gbce")


def check_item_optimizer(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for options that do not go with the item table's optimizer; each alone has been checked
    before."""
    chosen = options["item_optimizer"]
    if chosen == "adamw" and options["optimizer"] != "adamw":
        raise ConfigError(f"item_optimizer: expected auto beside optimizer = {options['optimizer']}, got adamw")
    if chosen == "adamw":
        require_defaults(tuple(_OWN), "item_optimizer = adamw", options, defaults)
    if options["table_on"] == "host" and _has_features(options):
        raise ConfigError(
            "table_on: expected device with item_features or item_vectors as features, with which the items are ranked "
            "by rows that are computed on the device, got host"
        )
    if chosen in ROW_RULES and (reason := _obstacle(options)) is not None:
        raise ConfigError(f"item_optimizer: expected adamw or auto with {reason}, got {chosen}")


def item_rule(config: TrainConfig, num_items: int) -> str | None:
    """The rule by which rows of the item table move alone; None where the run's optimizer moves all of it.

    ``auto`` takes the large catalogs' rule from `LARGE` items on, where the other options allow it. Raises
    ``ConfigError`` where a step would draw more than half the catalog, and for a learning rate, a dtype or a place of
    the item table's own where it has no optimizer of its own.
    """
    chosen = config.item_optimizer
    if chosen == "auto":
        rule, _ = _by_size(config, num_items)
        for name, default in _OWN.items():
            if rule is None and getattr(config, name) != default:
                raise ConfigError(
                    f"{name}: expected {default} where all of the item table moves (item_optimizer = auto, {num_items} "
                    f"items), got {getattr(config, name)}"
                )
        return rule
    if chosen not in ROW_RULES:
        return None
    if draws_of(config) > num_items // 2:
        raise ConfigError(
            f"item_optimizer: expected adamw or auto where a step draws more than half of {num_items} items (a batch "
            f"of {config.batch_size} draws {draws_of(config)}), got {chosen}"
        )
    return ROW_RULES[chosen]


def log_item_rule(config: TrainConfig, num_items: int) -> None:
    """Says what ``auto`` takes for a large catalog, and why not another."""
    if config.item_optimizer == "auto" and (message := _by_size(config, num_items)[1]) is not None:
        logger.info("%s", message)


def _by_size(config: TrainConfig, num_items: int) -> tuple[str | None, str | None]:
    """The rule that ``auto`` takes, and what is to be said of it."""
    if num_items < LARGE:
        return None, None
    reason = _obstacle(vars(config)) or (None if draws_of(config) <= num_items // 2 else "so many draws")
    if reason is not None:
        return None, f"every step moves all {num_items} items, because of {reason}"
    return ROW_RULES[_LARGE_RULE], f"item_optimizer: {_LARGE_RULE}, as there are {LARGE} items or more"


def item_rate_share(config: TrainConfig) -> float:
    """The item table's learning rate over the other parameters'."""
    return config.item_learning_rate / config.learning_rate if config.item_learning_rate else 1.0


def draws_of(config: TrainConfig) -> int:
    """What the groups of a batch draw."""
    return -(-config.batch_size * config.max_length // config.group_size) * config.num_negatives


def require_shareable(config: TrainConfig, num_items: int, number: int) -> None:
    """Raises ``ConfigError`` where ``number`` devices cannot have a part each of the item table and move its rows."""
    if number > 1 and item_rule(config, num_items) is not None and config.loss != "softmax":
        raise ConfigError(
            f"loss: expected softmax where {number} devices have a part each of the item table (with item_optimizer = "
            f"adamw each has all of it), got {config.loss}"
        )


def _has_features(options: Mapping[str, Any]) -> bool:
    as_features = options["item_vectors"] is not None and options["item_vectors_as"] == "features"
    return options["item_features"] is not None or as_features


def _obstacle(options: Mapping[str, Any]) -> str | None:
    """Why rows of the table cannot move alone, if so."""
    if options["loss"] not in _LOSSES or options["negatives"] not in ("uniform", "auto"):
        return f"loss = {options['loss']}, negatives = {options['negatives']}"
    if options["group_size"] == 1:
        return "group_size = 1"
    if options["accumulate"] > 1:
        return f"accumulate = {options['accumulate']}"
    if options["ema_decay"]:
        return f"ema_decay = {options['ema_decay']}"
    return None
