"""The evaluation protocols that a run may choose: which options belong to which, and the cutoffs of the metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..option_checks import require_defaults
from .splits import NO_SPLIT

SELECTION_CUTOFF = 10
"""The k of the NDCG@k by which validation chooses the best epoch."""

_FRACTIONS = ("split_quantile", "valid_fraction")

_OF_HELD_OUT = ("train_on_valid", "patience", "eval_every", "metrics_at", "filter_seen", "test_users")
"""Options that say what is done with events that are held out."""


def parse_cutoffs(text: str) -> tuple[int, ...]:
    """The k of the metrics, from a text such as ``"10"`` or ``"5,10,20"``.

    Raises ``ConfigError`` unless they are distinct positive integers with `SELECTION_CUTOFF` among them: NDCG@10
    chooses the best epoch whatever else is measured, so that runs with other cutoffs still choose the same one.
    """
    parts = [part.strip() for part in text.split(",")]
    cutoffs = tuple(int(part) for part in parts if part.isascii() and part.isdigit())
    if len(cutoffs) != len(parts) or len(set(cutoffs)) != len(cutoffs) or 0 in cutoffs:
        raise ConfigError(f"metrics_at: expected different positive integers separated by commas, got {text!r}")
    if SELECTION_CUTOFF not in cutoffs:
        raise ConfigError(
            f"metrics_at: expected {SELECTION_CUTOFF} among them, as NDCG@{SELECTION_CUTOFF} chooses the best epoch, "
            f"got {text!r}"
        )
    return cutoffs


def check_protocol(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for values out of range and for options that the chosen protocol would ignore."""
    for name in _FRACTIONS:
        if not 0 < options[name] < 1:
            raise ConfigError(f"{name}: expected a number between 0 and 1, got {options[name]}")
    if options["min_rating"] is not None and not math.isfinite(options["min_rating"]):
        raise ConfigError(f"min_rating: expected a finite number, got {options['min_rating']}")
    parse_cutoffs(options["metrics_at"])
    if options["split"] in ("leave-one-out", NO_SPLIT):
        require_defaults(_FRACTIONS, f"split = {options['split']}", options, defaults)
    if options["split"] == NO_SPLIT:
        require_defaults(_OF_HELD_OUT, f"split = {NO_SPLIT}", options, defaults)
    if options["min_rating"] is None:
        require_defaults(("rating_column",), "no min_rating", options, defaults)
    if options["train_on_valid"]:
        require_defaults(("valid_fraction", "patience", "eval_every"), "train_on_valid", options, defaults)
