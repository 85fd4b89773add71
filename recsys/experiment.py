"""The data of a run, from its configuration."""

from __future__ import annotations

from .config import TrainConfig
from .datasets import load_dataset
from .interactions import Interactions
from .splits import Split, make_split


def prepare_data(config: TrainConfig) -> tuple[Interactions, Split]:
    """Load the data set that ``config`` names and split it; raises `DataError` before any training."""
    interactions = load_dataset(
        config.data,
        user_column=config.user_column,
        item_column=config.item_column,
        time_column=config.time_column,
        titles=config.titles,
        title_column=config.title_column,
    )
    return interactions, make_split(config.split, interactions)
