"""The models that a run may choose, and which options belong to which of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..option_checks import require_defaults

MODELS = ("sasrec", "bert4rec", "ligr")

LEAST_LENGTH = {"sasrec": 1, "bert4rec": 2, "ligr": 1}
"""Fewest places of a model: BERT4Rec's last one is the mask, and with no other it would see nothing."""


def check_length(model: str, max_length: int) -> None:
    """Raises ``ConfigError`` for a history too short for the model."""
    if max_length < LEAST_LENGTH[model]:
        raise ConfigError(f"max_length: expected at least {LEAST_LENGTH[model]} with model = {model}, got {max_length}")


def check_model(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for options that the model would ignore and sizes that do not go with it; each option
    alone has been checked before."""
    model = options["model"]
    if model != "bert4rec":
        require_defaults(("mask_probability",), f"model = {model}", options, defaults)
    if options["max_length"]:  # 0 leaves it to the log
        check_length(model, options["max_length"])
