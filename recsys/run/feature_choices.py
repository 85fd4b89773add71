"""The side information on items that a run may choose, and which of its options belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..option_checks import require_defaults

VECTOR_USES = ("features", "initial")


def parse_columns(text: str) -> tuple[str, ...]:
    """The columns of a text such as ``"genre,studio"``; raises ``ConfigError`` unless they are distinct and none is
    empty."""
    columns = tuple(part.strip() for part in text.split(","))
    if "" in columns or len(set(columns)) != len(columns):
        raise ConfigError(f"feature_columns: expected different column names separated by commas, got {text!r}")
    return columns


def check_features(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for options that the choice of files would ignore and for those that a file needs; each
    option alone has been checked before."""
    if options["item_features"] is None:
        require_defaults(("feature_columns",), "no item_features", options, defaults)
    elif options["feature_columns"] is None:
        raise ConfigError("feature_columns: expected the columns of item_features to use, got none")
    elif options["item_column"] in parse_columns(options["feature_columns"]):
        raise ConfigError(f"feature_columns: expected columns beside item_column, got {options['feature_columns']!r}")
    if options["item_vectors"] is None:
        require_defaults(("item_vectors_as", "item_vectors_dim"), "no item_vectors", options, defaults)
    if options["item_vectors_as"] == "initial":
        require_defaults(("item_vectors_dim",), "item_vectors_as = initial", options, defaults)
        if options["init_weights"] is not None:
            raise ConfigError(
                "item_vectors_as: expected features with init_weights, which replace the initial item table, got "
                "initial"
            )
