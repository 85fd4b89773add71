"""An encoder as a program of its framework, which runs where this package is not installed, and what it takes and
gives."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..protocol.batches import PAD
from ..run.model_config import ModelConfig

MOST_IN_PROGRAM = 2**31 - 2**24
"""Bytes of item rows that a program holds: formats of serialized programs end at 2 GiB, other weights and code among
it."""


@dataclass(frozen=True)
class EncoderProgram:
    """A function of int32 ids (B, max_length), any B > 0, whose result (B, D) float32 is the hidden state that scores
    the next item; the rows of the items that it looks up are in it.

    ``file`` is its usual name, ``framework`` and ``version`` what it runs in, on one of ``platforms``; ``write`` writes
    it to a path.
    """

    file: str
    framework: str
    version: str
    platforms: tuple[str, ...]
    write: Callable[[Path], None]


def require_program(config: ModelConfig) -> None:
    """Raises ``ConfigError`` where the item rows of a model are too large for a program."""
    is_half = config.table_dtype == "bf16" and not config.num_features
    size = math.prod((config.num_items, config.dim, 2 if is_half else 4))
    if size > MOST_IN_PROGRAM:
        raise ConfigError(
            f"program: expected item rows of at most {MOST_IN_PROGRAM / 2**30:.2f} GiB to be inside the program, got "
            f"{size / 2**30:.2f} GiB; encoder.safetensors holds the weights of a model of any size"
        )


def describe_program(program: EncoderProgram, config: ModelConfig, size: int) -> str:
    """JSON for those who call the ``program`` of ``size`` bytes."""
    told: dict[str, Any] = {
        "file": program.file,
        "bytes": size,
        "framework": program.framework,
        "version": program.version,
        "platforms": program.platforms,
        "model": config.model,
        "num_items": config.num_items,
        "max_length": config.max_length,
        "padding_id": PAD,
        "input": {
            "shape": ["batch", config.max_length],
            "dtype": "int32",
            "row": "rows of catalog.parquet, counted from 0, of a history's last max_length items, the latest last; "
            "padding_id in front of a shorter history",
        },
        "output": {
            "shape": ["batch", config.dim],
            "dtype": "float32",
            "row": "the hidden state; its inner product with a row of items.safetensors is that item's score",
        },
    }
    return json.dumps(told, indent=1) + "\n"
