"""Triton device code, its launchers on torch tensors, and the samplers."""

from .drawn_ids import negative_ids
from .errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from .permutation import fold_seed
from .samplers import AllItems, LogUniformNegatives, PopularityNegatives, UniformNegatives

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "LogUniformNegatives",
    "PopularityNegatives",
    "UniformNegatives",
    "fold_seed",
    "negative_ids",
]
