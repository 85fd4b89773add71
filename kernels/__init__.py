"""Triton device code, its launchers on torch tensors, and the samplers."""

from .drawn_ids import negative_ids
from .errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from .history import History, user_items
from .permutation import fold_seed
from .samplers import (
    AllItems,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
)

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "HardNegatives",
    "History",
    "InBatchNegatives",
    "LogUniformNegatives",
    "MixedNegatives",
    "PopularityNegatives",
    "UniformNegatives",
    "fold_seed",
    "negative_ids",
    "user_items",
]
