"""Samplers of negatives: what a user chooses. How their draws come about is in ``draws``."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass, fields
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ArgumentTypeError, ArgumentValueError

MIN_GROUP, MAX_GROUP = 16, 256  # a tensor-core tile needs 16 rows; draws shared by more than 256 rows cost quality


def as_index(argument: str, value: object) -> int:
    """``value`` as an int; bool, float and arrays raise ArgumentTypeError."""
    if isinstance(value, bool):
        raise ArgumentTypeError(argument, "an int", "bool")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentTypeError(argument, "an int", type(value).__name__) from None


def _check_count(sampler: object, option: str, limit: int = 2**31) -> None:
    """Raise for a number of items outside [1, limit); turns an integer-like one into an int."""
    value = as_index(option, getattr(sampler, option))
    if not 1 <= value < limit:
        raise ArgumentValueError(option, f"an int in [1, {limit})", value)
    object.__setattr__(sampler, option, value)


def _check_groups(sampler: object, smallest_group: int = MIN_GROUP) -> None:
    """Raise for options outside their domains; turns integer-like ones into ints."""
    group = as_index("group_size", sampler.group_size)  # type: ignore[attr-defined]
    grouped = MIN_GROUP <= group <= MAX_GROUP and group & (group - 1) == 0
    if not (grouped or group == smallest_group):
        alone = "1 or " if smallest_group == 1 else ""
        raise ArgumentValueError("group_size", f"{alone}a power of two from {MIN_GROUP} to {MAX_GROUP}", group)
    object.__setattr__(sampler, "group_size", group)
    _check_shuffle(sampler)


def _check_shuffle(sampler: object) -> None:
    shuffle = sampler.shuffle_rows  # type: ignore[attr-defined]
    if not isinstance(shuffle, bool):
        raise ArgumentTypeError("shuffle_rows", "a bool", type(shuffle).__name__)


@dataclass(frozen=True)
class UniformNegatives:
    """``num_negatives`` items for every row, uniform over the catalog and without replacement within a row.

    ``group_size`` rows share one draw, so that their scores are a matrix product; 1 draws for every row independently
    (the paper's sampling), otherwise a power of two from 16 to 256. ``shuffle_rows`` assigns rows to groups by a random
    permutation, so that neighbours in one user's sequence do not share their negatives.
    With ``num_negatives`` >= the number of items, every item is a candidate and the loss is full softmax cross-entropy.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        _check_count(self, "num_negatives")
        _check_groups(self, smallest_group=1)


@dataclass(frozen=True)
class AllItems:
    """Every item is a candidate for every row: full softmax cross-entropy, with nothing drawn and no seed needed."""


MOST_LISTED = 1 << 20  # items of a group's list
_numbers = itertools.count()
_numbered: WeakValueDictionary[int, WeightedNegatives] = WeakValueDictionary()


class WeightedNegatives:
    """What samplers with unequal probabilities share: a number that stands for the object where a graph compiler takes
    numbers only."""

    num_negatives: int
    group_size: int
    shuffle_rows: bool

    def __post_init__(self) -> None:
        _check_count(self, "num_negatives", MOST_LISTED + 1)
        _check_groups(self)
        object.__setattr__(self, "_number", next(_numbers))
        _numbered[self.number] = self

    @property
    def number(self) -> int:
        return self._number  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Copies, in other processes too, are constructed anew and get their own number."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    def weights(self, num_items: int) -> NDArray[np.float64]:
        """What each item's draw probability is proportional to; raises for a catalog that the sampler does not fit."""
        raise NotImplementedError


def weighted_sampler(number: int) -> WeightedNegatives:
    """The living sampler of that number."""
    return _numbered[number]


@dataclass(frozen=True, eq=False)
class PopularityNegatives(WeightedNegatives):
    """``num_negatives`` items for every group of rows, drawn in proportion to ``counts ** alpha``.

    ``counts`` (V,) are nonnegative numbers, at least one positive: how often each item occurs in the training data. An
    item without a count is never drawn. ``alpha`` smooths them: 1 is popularity, 0 uniform over the items that occur,
    0.75 the choice of word2vec (arXiv 1310.4546). An item may be drawn more than once for a row; each draw counts.
    Groups and ``shuffle_rows`` as in ``UniformNegatives``; a group has at least 16 rows. Keep one sampler for a
    training: its tables are made once, and two samplers are equal only if they are the same object.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    counts: ArrayLike
    num_negatives: int
    alpha: float = 0.75
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)):
            raise ArgumentTypeError("alpha", "a number", type(self.alpha).__name__)
        if not 0 <= self.alpha < float("inf"):
            raise ArgumentValueError("alpha", "a finite number, at least 0", self.alpha)
        counts = np.array(self.counts)
        if counts.dtype.kind not in "iuf":
            raise ArgumentTypeError("counts", "an array of numbers", str(counts.dtype))
        if counts.ndim != 1 or not (counts >= 0).all() or not np.isfinite(counts).all() or not (counts > 0).any():
            raise ArgumentValueError(
                "counts", "finite numbers (V,), none negative and not all 0", f"shape {counts.shape}, {counts}"
            )
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    def weights(self, num_items: int) -> NDArray[np.float64]:
        counts = np.asarray(self.counts, np.float64)
        if len(counts) != num_items:
            raise ArgumentValueError(
                "negatives", f"counts of the {num_items} items of linear_weight", f"{len(counts)} counts"
            )
        return np.where(counts > 0, (counts / counts.max()) ** self.alpha, 0.0)


@dataclass(frozen=True)
class LogUniformNegatives(WeightedNegatives):
    """``num_negatives`` items for every group of rows, item j with probability log((j + 2) / (j + 1)) / log(V + 1).

    Zipf's law for items sorted from the most to the least popular, as TensorFlow's log_uniform_candidate_sampler; an
    item may be drawn more than once. Groups and errors as in ``PopularityNegatives``.
    """

    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def weights(self, num_items: int) -> NDArray[np.float64]:
        return np.log1p(1.0 / np.arange(1.0, num_items + 1.0))


@dataclass(frozen=True)
class InBatchNegatives:
    """The other rows' targets: of the ``group_size`` rows of a group, or with None of the whole call.

    An item comes as often as it is a target, so that the correction needs how often that is: ``log_q`` of the loss, of
    a running estimate (``update_frequencies``), as of Yi et al., RecSys 2019. Rows with the row's own target are no
    negatives, so that ``remove_accidental_hits=False`` raises. Groups as in ``UniformNegatives``, of at least 16 rows.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains.
    """

    group_size: int | None = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        if self.group_size is not None:
            _check_groups(self)
            return
        _check_shuffle(self)
        if not self.shuffle_rows:
            raise ArgumentValueError("shuffle_rows", "True where group_size is None: there are no groups", False)


@dataclass(frozen=True)
class MixedNegatives:
    """The negatives of two samplers together, such as uniform and in-batch ones (arXiv 2508.06450, "mixed").

    With K_i draws of probabilities q_i each (of a group's rows one less than ``group_size``, since a row's own target
    is none), the correction takes Q = (K_1 q_1 + K_2 q_2) / (K_1 + K_2). Both are grouped, with one ``group_size`` and
    ``shuffle_rows``: ``UniformNegatives``, ``PopularityNegatives``, ``LogUniformNegatives`` or ``InBatchNegatives``,
    the last one at most once. The two draw independently.

    Raises ArgumentTypeError or ArgumentValueError for others.
    """

    first: UniformNegatives | PopularityNegatives | LogUniformNegatives | InBatchNegatives
    second: UniformNegatives | PopularityNegatives | LogUniformNegatives | InBatchNegatives

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            sampler = getattr(self, name)
            if not isinstance(sampler, (UniformNegatives, WeightedNegatives, InBatchNegatives)):
                expected = "UniformNegatives, PopularityNegatives, LogUniformNegatives or InBatchNegatives"
                raise ArgumentTypeError(name, expected, type(sampler).__name__)
            if sampler.group_size in (1, None):
                raise ArgumentValueError(
                    name, f"a sampler of groups of {MIN_GROUP} rows or more", f"group_size {sampler.group_size}"
                )
        if isinstance(self.first, InBatchNegatives) and isinstance(self.second, InBatchNegatives):
            raise ArgumentValueError("second", "another sampler beside InBatchNegatives", "InBatchNegatives")
        for option in ("group_size", "shuffle_rows"):
            first, second = getattr(self.first, option), getattr(self.second, option)
            if first != second:
                raise ArgumentValueError("second", f"the {option} of the first, {first}", second)

    @property
    def group_size(self) -> int:
        assert self.first.group_size is not None
        return self.first.group_size

    @property
    def shuffle_rows(self) -> bool:
        return self.first.shuffle_rows


@dataclass(frozen=True)
class HardNegatives:
    """For every group the ``num_negatives`` highest-scoring items of ``pool`` items drawn uniformly and without
    replacement.

    An item's score in a group is its largest over the group's rows, the rows whose target it is left out; equal ones by
    the order of the draw. The choice is not differentiated. Each kept item stands for V / pool items: ``s_j + log(V /
    P)``, which makes the sum of the whole pool an unbiased estimate of that over the catalog, of which the chosen items
    are the larger part. With a pool of every item the loss is softmax cross-entropy over each group's hardest items.
    Scoring and choosing take about 20 bytes for each group and item of its pool. Groups as in ``UniformNegatives``, of
    at least 16 rows.

    Raises ArgumentTypeError or ArgumentValueError for values outside these domains, and for more negatives than the
    pool has.
    """

    pool: int
    num_negatives: int
    group_size: int = 128
    shuffle_rows: bool = True

    def __post_init__(self) -> None:
        _check_count(self, "pool", MOST_LISTED + 1)
        _check_count(self, "num_negatives", MOST_LISTED + 1)
        _check_groups(self)
        if self.num_negatives > self.pool:
            raise ArgumentValueError("num_negatives", f"at most the {self.pool} items of the pool", self.num_negatives)


Sampler = (
    UniformNegatives
    | AllItems
    | PopularityNegatives
    | LogUniformNegatives
    | InBatchNegatives
    | MixedNegatives
    | HardNegatives
)
SAMPLERS = (
    UniformNegatives,
    AllItems,
    PopularityNegatives,
    LogUniformNegatives,
    InBatchNegatives,
    MixedNegatives,
    HardNegatives,
)
