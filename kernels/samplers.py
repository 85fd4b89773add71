"""Samplers of negatives: what a user chooses. How their draws come about is in ``draws.py``."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from .errors import ArgumentTypeError, ArgumentValueError

MIN_GROUP, MAX_GROUP = 16, 256  # a tensor-core tile needs 16 rows; draws shared by more than 256 rows cost quality


def as_index(argument: str, value: object) -> int:
    """``value`` as an int; bool, float and arrays raise ArgumentTypeError."""
    if isinstance(value, bool):
        raise ArgumentTypeError(argument, "an int", "bool")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentTypeError(argument, "an int", type(value).__name__) from None


@dataclass(frozen=True)
class UniformNegatives:
    """``num_negatives`` items for every row, uniform over the catalog and without replacement within a row.

    ``group_size`` rows share one draw, so that their scores are a matrix product; 1 draws for every row independently (the
    paper's sampling), otherwise a power of two from 16 to 256. ``shuffle_rows`` assigns rows to groups by a random
    permutation, so that neighbours in one user's sequence do not share their negatives.
    With ``num_negatives`` >= the number of items, every item is a candidate and the loss is full softmax cross-entropy.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        negatives = as_index("num_negatives", self.num_negatives)
        group = as_index("group_size", self.group_size)
        if not 1 <= negatives < 2**31:
            raise ArgumentValueError("num_negatives", "an int in [1, 2^31)", negatives)
        if group != 1 and not (MIN_GROUP <= group <= MAX_GROUP and group & (group - 1) == 0):
            raise ArgumentValueError("group_size", f"1 or a power of two from {MIN_GROUP} to {MAX_GROUP}", group)
        if not isinstance(self.shuffle_rows, bool):
            raise ArgumentTypeError("shuffle_rows", "a bool", type(self.shuffle_rows).__name__)
        object.__setattr__(self, "num_negatives", negatives)
        object.__setattr__(self, "group_size", group)


@dataclass(frozen=True)
class AllItems:
    """Every item is a candidate for every row: full softmax cross-entropy, with nothing drawn and no seed needed."""


Sampler = UniformNegatives | AllItems
