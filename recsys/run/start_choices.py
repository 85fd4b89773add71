"""What a run may start from, and which of its options belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..option_checks import require_defaults

GONE_ITEMS = ("drop", "keep")


def check_start(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for weights from two places and for options that a run would ignore; each option alone has
    been checked before."""
    if options["from_run"] is None:
        require_defaults(("gone_items",), "no from_run", options, defaults)
    elif options["init_weights"] is not None:
        raise ConfigError(
            f"init_weights: expected none with from_run, whose weights the run starts from, got "
            f"{options['init_weights']}"
        )
