"""Triton device code, its launchers on torch tensors, and the samplers."""

from .draws import negative_ids
from .errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from .permutation import fold_seed
from .samplers import AllItems, UniformNegatives

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "UniformNegatives",
    "fold_seed",
    "negative_ids",
]
