"""How the vectors with the largest products with each centre are found; the static numbers, shared by torch and JAX.

Where the products with all vectors are too many to keep, the largest one of each block of vectors is kept instead. The
``size`` nearest vectors lie in the ``size`` blocks of the largest maxima: these maxima are as many vectors, and no
vector of another block is nearer. In the same way, these blocks lie in the tiles of blocks with the largest maxima.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..negatives.buckets import SCORE_ELEMENTS
from ..numbers import ceil_div
from .buffers import Buffer

TILE_V = 128  # vectors that a program multiplies with all centres
LEAST_BLOCK, MOST_BLOCK = 16, TILE_V  # vectors of a block
MOST_MAXIMA = 1 << 26  # of blocks, in memory, as far as larger blocks avoid it
MOST_SELECTED_FROM = 1 << 15  # values that a program selects from
FEW_BLOCKS = 1 << 13  # are selected from at once
WORTH = 4  # times more vectors than the chosen blocks hold


def sections(num_candidates: int) -> int:
    """Parts of so many candidates that are selected from apart, before what these give is selected from."""
    return ceil_div(num_candidates, MOST_SELECTED_FROM)


@dataclass(frozen=True)
class Nearest:
    """The ``size`` of ``num_vectors`` nearest to each of ``num_centres``, by blocks of ``block`` vectors, or 0 by the
    products with all."""

    num_centres: int
    num_vectors: int
    size: int
    block: int

    @property
    def num_blocks(self) -> int:
        return ceil_div(self.num_vectors, self.block)

    @property
    def num_tiles(self) -> int:
        return ceil_div(self.num_vectors, TILE_V)

    @property
    def has_tiles(self) -> bool:
        return self.num_blocks > FEW_BLOCKS and self.num_tiles >= self.size and self.block < TILE_V

    @property
    def selections(self) -> tuple[int, ...]:
        """The numbers of candidates of each selection, in order."""
        if not self.block:
            return (self.num_vectors,)
        of_blocks = (self.num_tiles, self.size * (TILE_V // self.block)) if self.has_tiles else (self.num_blocks,)
        return (*of_blocks, self.size * self.block)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """What the search writes, besides the (num_centres, size) int32 places."""
        parts = max(map(sections, self.selections))
        columns = {"sectioned": parts * self.size if parts > 1 else 0}
        if self.block:
            columns |= {"maxima": self.num_blocks, "blocks": self.size, "products": self.size * self.block}
            columns |= {"tile_maxima": self.num_tiles, "tiles": self.size} if self.has_tiles else {}
        dtypes = dict.fromkeys(("maxima", "tile_maxima", "products"), "float32")
        shapes = {name: (self.num_centres, number) for name, number in columns.items() if number}
        return tuple(Buffer(name, shape, dtypes.get(name, "int32")) for name, shape in shapes.items())  # type: ignore


def plan_nearest(num_centres: int, num_vectors: int, size: int) -> Nearest | None:
    """How kernels find the nearest; None where they would save little."""
    if num_vectors <= MOST_SELECTED_FROM and num_centres * num_vectors <= SCORE_ELEMENTS:
        return Nearest(num_centres, num_vectors, size, 0)
    block = LEAST_BLOCK
    while block < MOST_BLOCK and num_centres * (num_vectors // block) > MOST_MAXIMA:
        block *= 2
    plan = Nearest(num_centres, num_vectors, size, block)
    fits = max(map(sections, plan.selections)) * size <= MOST_SELECTED_FROM // 2
    return plan if fits and num_vectors >= WORTH * block * size else None
