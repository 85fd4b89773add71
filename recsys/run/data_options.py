"""The options of a run that say which data it trains on, and how an option is declared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..data.datasets import DATASETS
from ..protocol.splits import NO_SPLIT


def option(default: Any, group: str, text: str, *, flag: str | None = None) -> Any:
    """A field of a configuration: its default, its group on the command line and its help; the command line calls it
    ``flag``, by default as the field is called."""
    return dataclasses.field(default=default, metadata={"group": group, "help": text, "flag": flag})


def flag_of(field: dataclasses.Field[Any]) -> str:
    """What the command line calls an option that is no switch."""
    return field.metadata["flag"] or f"--{field.name.replace('_', '-')}"


@dataclass(frozen=True)
class DataOptions:
    """The options of the group Data, which `TrainConfig` checks."""

    data: str = option(
        "ml-100k",
        "Data",
        f"Data set: {' or '.join(DATASETS)} (downloaded once), or a table with one interaction a row: Parquet, CSV, "
        "TSV or JSON lines, a file, a folder of parts or a pattern in quotes.",
    )
    user_column: str = option("user_id", "Data", "Column of the file that holds the user (integers or text).")
    item_column: str = option("item_id", "Data", "Column of the file that holds the item (integers or text).")
    time_column: str = option("timestamp", "Data", "Column of the file that holds the time (integers or dates).")
    rating_column: str = option("rating", "Data", "Column of the file that holds the rating, for min_rating.")
    titles: str | None = option(
        None,
        "Data",
        "Table with the item column and a title, to print recommendations by title.",
    )
    title_column: str = option("title", "Data", "Column of the titles file that holds the title.")
    items: str | None = option(
        None,
        "Data",
        "Table with the item column: all its items are in the catalog, also those without an event.",
    )
    item_features: str | None = option(
        None,
        "Data",
        "Table with the item column and what the model is to know of items: categories, such as genres, and numbers, "
        "such as a price.",
    )
    feature_columns: str | None = option(
        None,
        "Data",
        "Columns of the item features that are categories, such as genre,brand: a list of values or text with | "
        "between them. The 1024 most frequent values of each are used.",
    )
    numeric_columns: str | None = option(
        None,
        "Data",
        "Columns of the item features that are numbers, such as price,weight. An empty cell is no number.",
    )
    numeric_as: str = option(
        "standardized",
        "Data",
        "standardized: (x - mean) / std over the items, for numbers that have no long tail, and whether one is "
        "missing. quantiles: the bin that a number is in, one of numeric-bins with about as many items each; for "
        "prices and other numbers of which few are much larger than the rest.",
    )
    numeric_bins: int = option(
        10,
        "Data",
        "quantiles: bins of a numeric column, at most 1024; fewer where so many items share a value that edges are "
        "equal.",
    )
    item_vectors: str | None = option(
        None,
        "Data",
        "Parquet file with the item column and a pretrained vector of each item, a list in the column vector.",
    )
    item_vectors_as: str = option(
        "features",
        "Data",
        "features: the item vectors, standardised, are projected and added to the item's own embedding. initial: "
        "the item embeddings start from their principal components.",
    )
    item_vectors_dim: int = option(0, "Data", "Principal components of the item vectors as features; 0: all of them.")
    drop_missing: bool = option(
        False,
        "Data",
        "Leave out rows without a user, an item, a time or a rating that is read, which else are an error.",
    )
    drop_duplicates: bool = option(False, "Data", "Leave out events that repeat another's user, item and time.")
    min_rating: float | None = option(None, "Data", "Keep events rated at least so; without it ratings are not read.")
    min_item_events: int = option(
        1,
        "Data",
        "Keep items with at least so many events, items and users in turn until all have enough of what is left. "
        "Events that are validated and tested on count too, as in published protocols.",
    )
    min_user_events: int = option(1, "Data", "Keep users with at least so many events; see min-item-events.")
    split: str = option(
        "leave-one-out",
        "Data",
        "leave-one-out: a user's last item is the test, the one before it the validation. "
        "global-temporal: train before one moment in time, test after it, with some users for validation. "
        "sessions: every user is one session; train on the earlier ones, test on the later ones. "
        "none: a final model of every event, which nothing measures; the last epoch's weights are kept.",
    )
    split_quantile: float = option(
        0.9,
        "Data",
        "global-temporal: share of all events that happen before its moment. sessions: share of all sessions before "
        "the tested ones.",
    )
    valid_fraction: float = option(
        0.05,
        "Data",
        "global-temporal: share of the users held out for validation. sessions: share of the sessions before the "
        "tested ones, the last of them.",
    )
    train_on_valid: bool = option(
        False,
        "Data",
        "Train a final model on the validation items too: no validation is done and the last epoch's weights are kept.",
    )

    @property
    def has_validation(self) -> bool:
        """Whether a part is held out that chooses the best epoch; else the last one is kept."""
        return self.has_test and not self.train_on_valid

    @property
    def has_test(self) -> bool:
        """Whether a part is held out for the test."""
        return self.split != NO_SPLIT
