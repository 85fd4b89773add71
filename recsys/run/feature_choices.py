"""The side information on items that a run may choose, and which of its options belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..option_checks import require, require_defaults

VECTOR_USES = ("features", "initial")

NUMERIC_USES = ("standardized", "quantiles")

MOST_BINS = 1024
"""Of a numeric column, as each is a float32 for every item; as many as the values of a column of categories."""


def parse_columns(name: str, text: str | None) -> tuple[str, ...]:
    """The columns of a text such as ``"genre,studio"``, none of None; raises ``ConfigError`` that names the option
    ``name`` unless they are distinct and none is empty."""
    columns = () if text is None else tuple(part.strip() for part in text.split(","))
    if "" in columns or len(set(columns)) != len(columns):
        raise ConfigError(f"{name}: expected different column names separated by commas, got {text!r}")
    return columns


def check_features(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for options that the choice of files would ignore and for those that a file needs; each
    option alone has been checked before."""
    lists = ("feature_columns", "numeric_columns")
    if options["item_features"] is None:
        require_defaults(lists, "no item_features", options, defaults)
    elif all(options[name] is None for name in lists):
        raise ConfigError("feature_columns: expected the columns of item_features to use, or numeric_columns, got none")
    for name in lists:
        if options["item_column"] in parse_columns(name, options[name]):
            raise ConfigError(f"{name}: expected columns beside item_column, got {options[name]!r}")
    if options["numeric_columns"] is None:
        require_defaults(("numeric_as", "numeric_bins"), "no numeric_columns", options, defaults)
    if options["numeric_as"] != "quantiles":
        require_defaults(("numeric_bins",), f"numeric_as = {options['numeric_as']}", options, defaults)
    require(options["numeric_bins"] <= MOST_BINS, "numeric_bins", f"at most {MOST_BINS}", options["numeric_bins"])
    if options["item_vectors"] is None:
        require_defaults(("item_vectors_as", "item_vectors_dim"), "no item_vectors", options, defaults)
    if options["item_vectors_as"] == "initial":
        require_defaults(("item_vectors_dim",), "item_vectors_as = initial", options, defaults)
        if options["init_weights"] is not None:
            raise ConfigError(
                "item_vectors_as: expected features with init_weights, which replace the initial item table, got "
                "initial"
            )
