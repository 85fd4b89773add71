"""What the checks of options that belong together share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError


def require_defaults(
    names: Sequence[str], choice: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raises ``ConfigError`` for one of ``names`` whose option is not its default, as ``choice`` would ignore it."""
    for name in names:
        if options[name] != defaults[name]:
            raise ConfigError(
                f"{name}: expected its default {defaults[name]} with {choice}, which does not use it, got "
                f"{options[name]}"
            )
