"""The options of a run's file as they were given to it: what it left to its log is left to the next one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..option_checks import require
from ..protocol.splits import NO_SPLIT
from .config import LEFT, TrainConfig

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}


def left_of(path: Path) -> tuple[str, ...]:
    """The options that the run of this ``config.json`` left to its log; raises ``ConfigError``."""
    TrainConfig.read(path)
    names = json.loads(path.read_text(encoding="utf-8")).get(LEFT, [])
    is_listed = isinstance(names, list) and all(name in _DEFAULTS for name in names)
    require(is_listed, f"{path}: {LEFT}", "a list of options", names)
    return tuple(names)


def given_options(path: Path) -> dict[str, Any]:
    """The options of a ``config.json`` by name, with their defaults for what the run left to its log; raises
    ``ConfigError``."""
    return {**vars(TrainConfig.read(path)), **{name: _DEFAULTS[name] for name in left_of(path)}}


def beside(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The ``saved`` options of a run and in their place those ``given``. Of negatives that are given anew, their number
    is not the saved one; nor is the patience, where nothing is validated."""
    both = {**saved, **given}
    if both["negatives"] != saved["negatives"] and "num_negatives" not in given:
        both["num_negatives"] = _DEFAULTS["num_negatives"]
    if (both["train_on_valid"] or both["split"] == NO_SPLIT) and "patience" not in given:
        both["patience"] = _DEFAULTS["patience"]
    return both
