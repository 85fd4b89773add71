"""Triton device code, its launchers on torch tensors, and the samplers."""

from .draws.permutation import fold_seed
from .errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from .negatives.drawn_ids import negative_ids
from .negatives.history import History, user_items
from .negatives.samplers import (
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
