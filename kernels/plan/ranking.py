"""How ranks of targets and the best items are found among a whole catalog; the static numbers, shared by torch and JAX.

Each tile of items is scored for all users, and nothing of (users, V) is kept: only how many items of the tile are ahead
of each user's target, and the largest score of each block of items. The k best items lie in the k blocks of the largest
maxima (of equal ones in the first): as many items reach these maxima, and none of another block is ahead of them. Their
items are scored again. What a user has seen is left out afterwards: where such an item is a block's maximum, it becomes
that of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..numbers import ceil_div, next_power_of_2
from .buffers import Buffer, place
from .nearest import MOST_SELECTED_FROM, sections
from .problem import Dtype
from .tiles import Work

TILE = 64  # users, and items, of a product
WORK = Work(TILE, 4, 2)
LEAST_BLOCK = 16  # items of a block
WORTH = 4  # times more items than the chosen blocks hold
MEMORY = 48 << 20  # bytes of a pass, as far as TILE users fit
MOST_K = 1024


@dataclass(frozen=True)
class Ranking:
    """Ranks of ``num_users`` targets, if there are any, and their ``k`` best of ``num_items`` of width ``dim``.

    ``most_seen``: items of a user that are left out, at most, in whole tiles. ``block``: items of a block; 1 keeps
    every score. ``has_candidates``: some items are for nobody.
    """

    num_users: int
    num_items: int
    dim: int
    k: int
    has_targets: bool
    most_seen: int
    block: int
    has_candidates: bool

    @property
    def num_blocks(self) -> int:
        return ceil_div(self.num_items, self.block)

    @property
    def has_blocks(self) -> bool:
        return self.block > 1

    @property
    def block_d(self) -> int:
        """Columns of a product: all of up to 128, which stay on the chip while the users pass by."""
        width = max(next_power_of_2(self.dim), 16)
        return width if width <= 128 else 64

    @property
    def selections(self) -> tuple[int, ...]:
        """The numbers of candidates of each selection, in order."""
        if not self.k:
            return ()
        return (self.num_blocks, self.k * self.block) if self.has_blocks else (self.num_items,)

    @cached_property
    def scratch(self) -> tuple[Buffer, ...]:
        """What the kernels write for each other."""
        parts = max(map(sections, self.selections), default=1)
        columns = {"sectioned": parts * self.k if parts > 1 else 0}
        if self.k:
            columns |= {"maxima": self.num_blocks, "places": self.k}
        if self.k and self.has_blocks:
            columns |= {"blocks": self.k, "products": self.k * self.block}
        shapes = {name: (self.num_users, number) for name, number in columns.items() if number}
        shapes |= {"halves": (2, self.num_users, self.dim), "inverse": (self.num_users,)}
        if self.has_targets:
            shapes |= dict.fromkeys(("score", "ahead"), (self.num_users,))
        dtypes: dict[str, Dtype] = dict.fromkeys(("maxima", "products", "score", "inverse"), "float32")
        dtypes["halves"] = "float16"
        return tuple(Buffer(name, shape, dtypes.get(name, "int32")) for name, shape in shapes.items())

    @cached_property
    def places(self) -> tuple[dict[str, int], int]:
        """Where each part of the scratch buffer begins, and how long it is, in elements of 4 bytes."""
        return place({each.name: ceil_div(each.size, 2 if each.dtype == "float16" else 1) for each in self.scratch})

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """The results ``rank`` (U,) and ``top`` (U, k), and one of all ``scratch``: an array costs a call's host as
        much as a launch."""
        results = {"rank": (self.num_users,)} if self.has_targets else {}
        results |= {"top": (self.num_users, self.k)} if self.k else {}
        shapes: dict[str, tuple[int, ...]] = {**results, "scratch": (self.places[1],)}
        return tuple(Buffer(name, shape, "int32") for name, shape in shapes.items())


@lru_cache(maxsize=256)
def plan_ranking(
    num_users: int, num_items: int, dim: int, k: int, has_targets: bool, most_seen: int, has_candidates: bool = False
) -> tuple[Ranking, ...] | None:
    """A plan for each of the passes that the users go in, one after the other; None where kernels cannot do it.

    The block is where the maxima and the scores of the chosen blocks are about as many.
    """
    block = TILE
    while block > LEAST_BLOCK and k * block * block > num_items:
        block //= 2
    if num_items < WORTH * block * k:
        block = 1

    def plan(users: int) -> Ranking:
        return Ranking(users, num_items, dim, k, has_targets, ceil_div(most_seen, TILE) * TILE, block, has_candidates)

    one = plan(1)
    selected = max((sections(number) for number in one.selections), default=1) * k
    if k > min(MOST_K, num_items) or selected > MOST_SELECTED_FROM or num_items >= 2**31 - TILE or not num_users:
        return None
    bytes_a_user = 4 * sum(buffer.size for buffer in one.buffers) or 4
    at_a_time = max(MEMORY // bytes_a_user // TILE, 1) * TILE
    return tuple(plan(min(at_a_time, num_users - first)) for first in range(0, num_users, at_a_time))
