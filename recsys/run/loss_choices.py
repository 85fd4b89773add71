"""The losses and negatives that a run may choose, and which options belong to which of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..option_checks import require_defaults

LOSSES = ("softmax", "bce", "gbce", "sce")
NEGATIVES = ("uniform", "all", "popularity", "log-uniform", "in-batch", "mixed", "hard", "auto")
GROUP_SIZES = (1, 16, 32, 64, 128, 256)

NUM_NEGATIVES = 256
"""Drawn where nothing else is said."""

_SAMPLED = ("softmax", "bce", "gbce")
_DRAWN = ("uniform", "popularity", "log-uniform", "mixed", "hard")
_GROUPED = (*_DRAWN, "in-batch")
_FOLLOW_TARGETS = ("in-batch", "mixed")
_CORRECTED = ("uniform", "popularity", "log-uniform", "in-batch", "mixed")

_DEFINED: dict[str, tuple[tuple[str, ...], str]] = {
    "softmax": (NEGATIVES, ""),
    "bce": (
        ("uniform", "popularity", "log-uniform"),
        "binary cross-entropy is over items drawn apart from the batch and the scores",
    ),
    "gbce": (("uniform",), "its beta follows from a uniform sampling rate"),
    "sce": (("uniform",), "the default, as it takes its negatives from its own buckets"),
}
"""The negatives that a loss is defined with, and why no others."""

_USED_BY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "num_negatives": (_SAMPLED, _DRAWN),
    "pool_size": (_SAMPLED, ("hard",)),
    "popularity_power": (_SAMPLED, ("popularity",)),
    "frequency_rate": (_SAMPLED, _FOLLOW_TARGETS),
    "logq_correction": (("softmax",), _CORRECTED),
    "group_size": (_SAMPLED, _GROUPED),
    "shuffle_rows": (_SAMPLED, _GROUPED),
    "gbce_t": (("gbce",), NEGATIVES),
    "n_buckets": (("sce",), NEGATIVES),
    "bucket_size_x": (("sce",), NEGATIVES),
    "bucket_size_y": (("sce",), NEGATIVES),
    "mix_x": (("sce",), NEGATIVES),
}
"""The losses and the negatives that an option acts with."""

MOST_LISTED = 2**20  # items that the samplers of lists draw for a group


def said_negatives(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``negatives`` and ``num_negatives`` as far as the other options tell them: auto is uniform with another loss than
    the softmax, which has no use for all items, and where an option of drawing is given; a number of 0 is
    `NUM_NEGATIVES` where negatives are drawn."""
    negatives, number = options["negatives"], options["num_negatives"]
    of_drawing = [
        name for name, (losses, samplers) in _USED_BY.items() if "softmax" in losses and "uniform" in samplers
    ]
    if negatives == "auto" and (
        options["loss"] != "softmax" or any(options[name] != defaults[name] for name in of_drawing)
    ):
        negatives = "uniform"
    if number == 0 and negatives in _DRAWN and options["loss"] in _SAMPLED:
        number = NUM_NEGATIVES
    return {"negatives": negatives, "num_negatives": number}


def without_unused(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a file without a ``num_negatives`` that its choice of negatives leaves unused."""
    drawn = options.get("negatives", "uniform") in _DRAWN and options.get("loss", "softmax") in _SAMPLED
    return {name: value for name, value in options.items() if drawn or name != "num_negatives"}


def check_loss(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for a loss with negatives that it is not defined with, for options that the choice would
    ignore, and for sizes that do not go with it; each option alone has been checked before."""
    loss, negatives = options["loss"], options["negatives"]
    defined, reason = _DEFINED[loss]
    if negatives not in defined:
        raise ConfigError(f"negatives: expected {' or '.join(defined)} with loss = {loss} ({reason}), got {negatives}")
    for name, (losses, samplers) in _USED_BY.items():
        if loss not in losses or negatives not in samplers:
            choice = f"loss = {loss}" if loss not in losses else f"negatives = {negatives}"
            require_defaults((name,), choice, options, defaults)
    if loss not in _SAMPLED:
        return
    if not options["logq_correction"]:
        require_defaults(("frequency_rate",), "no logq_correction", options, defaults)
    if negatives in _GROUPED and negatives != "uniform" and options["group_size"] == 1:
        raise ConfigError(f"group_size: expected at least {GROUP_SIZES[1]} with negatives = {negatives}, got 1")
    if negatives == "hard" and options["pool_size"] < options["num_negatives"]:
        raise ConfigError(
            f"pool_size: expected at least num_negatives = {options['num_negatives']}, got {options['pool_size']}"
        )
    listed = {"popularity": "num_negatives", "log-uniform": "num_negatives", "hard": "pool_size"}.get(negatives)
    if listed is not None and options[listed] > MOST_LISTED:
        raise ConfigError(
            f"{listed}: expected at most {MOST_LISTED} with negatives = {negatives}, got {options[listed]}"
        )
