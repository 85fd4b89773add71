"""The static numbers of scalable cross-entropy's buckets (SCE, arXiv 2409.18721), shared by torch and JAX."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ArgumentTypeError, ArgumentValueError
from ..numbers import as_index, next_power_of_2
from .arguments import MAX_ROWS
from .base import MIN_GROUP

WHOLE_TILES = 64  # rows that larger buckets are padded to a multiple of, which a tile of every table divides
MOST_PLACES = 2**31 - 1  # of the buckets' lists of items, which kernels index with 32 bits
SCORE_ELEMENTS = 1 << 26  # of the projections that are in memory at a time, and of the rows cast for them
COUNTS_ALWAYS = -2  # ignore_index of the buckets' rows, whose targets are -1 or above
NORMAL_ELEMENTS = 1 << 24  # of the normals that rows are mixed by, at a time


@dataclass(frozen=True)
class Buckets:
    """``n_buckets`` buckets of ``bucket_size_x`` rows and ``bucket_size_y`` items; with ``mix_x`` their centres are
    mixtures of rows.

    Raises ArgumentTypeError or ArgumentValueError for sizes that are no ints or below 1, and a mix_x that is no bool.
    """

    n_buckets: int
    bucket_size_x: int
    bucket_size_y: int
    mix_x: bool = False

    def __post_init__(self) -> None:
        for argument in ("n_buckets", "bucket_size_x", "bucket_size_y"):
            value = as_index(argument, getattr(self, argument))
            if value < 1:
                raise ArgumentValueError(argument, "an int, at least 1", value)
            object.__setattr__(self, argument, value)
        if not isinstance(self.mix_x, bool):
            raise ArgumentTypeError("mix_x", "a bool", type(self.mix_x).__name__)

    def fitted(self, num_rows: int, num_items: int) -> Buckets:
        """These buckets with no more rows and items than there are; raises ArgumentValueError where kernels could not
        index them."""
        # comparisons rather than min(): where sizes are symbolic, the smaller one stays a plain int
        size_x = self.bucket_size_x if self.bucket_size_x <= num_rows else num_rows
        size_y = self.bucket_size_y if self.bucket_size_y <= num_items else num_items
        buckets = replace(self, bucket_size_x=size_x, bucket_size_y=size_y)
        rows, places = self.n_buckets * buckets.group_size, self.n_buckets * size_y
        if rows > MAX_ROWS:
            raise ArgumentValueError("n_buckets", f"at most {MAX_ROWS} rows in all buckets", rows)
        if places > MOST_PLACES:
            raise ArgumentValueError("n_buckets", f"at most {MOST_PLACES} items in all buckets", places)
        return buckets

    @property
    def group_size(self) -> int:
        """Rows of a bucket as the kernels see it, padded to whole tiles."""
        if self.bucket_size_x <= WHOLE_TILES:
            return max(next_power_of_2(self.bucket_size_x), MIN_GROUP)
        return -(-self.bucket_size_x // WHOLE_TILES) * WHOLE_TILES

    def scores_at_a_time(self, size: int, dim: int) -> int:
        """Rows, or items, that are projected at a time; at least the ``size`` that a bucket takes of them."""
        return max(SCORE_ELEMENTS // max(self.n_buckets, dim), size)

    @property
    def mixed_at_a_time(self) -> int:
        """Rows whose normals are in memory at a time."""
        return max(NORMAL_ELEMENTS // self.n_buckets, 1)
