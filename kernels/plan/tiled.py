"""The plan of kernels on tiles: rows that share candidates, so that their scores are matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..draws.uniform import GroupedDraws
from ..numbers import ceil_div
from .listed import LIST_BLOCK
from .tiles import Config, Work, tile_config

if TYPE_CHECKING:
    from .problem import Problem

MOST_SPLITS = 64  # of the candidates that a tile of rows walks, or of the rows that a block of candidates does
LONG_WALK = 32  # blocks of candidates from which a walk is worth splitting wherever few rows count
LIST_REGISTERS = 168
HISTORY_ROWS = 32  # of a tile: a look-up for each of its scores takes registers


@dataclass(frozen=True, eq=False)
class Tiled:
    """Tiles of rows walk blocks of candidates; blocks of candidates walk the rows that drew them."""

    p: Problem

    @cached_property
    def config(self) -> Config:
        # the largest power of two that divides a group: a tile of rows has one group's candidates
        p = self.p
        rows = min(p.group_size & -p.group_size, 256) if p.kind.of_groups else 256
        rows = min(rows, HISTORY_ROWS) if p.history else rows
        return tile_config(p.input_dtype, p.dim, rows, self.block_limit, p.gpu.capability)

    @property
    def grouped(self) -> GroupedDraws | None:
        """The draw of blocks of positions, if candidates are such."""
        return self.p.draws if isinstance(self.p.draws, GroupedDraws) else None

    @property
    def has_blocks(self) -> bool:
        """Whether groups differ in the blocks they take (else every group takes the first K positions)."""
        return self.grouped is not None and self.grouped.groups_per_round > 0

    @property
    def block_limit(self) -> int | None:
        """The positions of a block, where the draw fixes them."""
        if self.p.listed:
            return min(self.p.negatives, LIST_BLOCK)
        return self.grouped.block if self.grouped else None

    @property
    def block(self) -> int:
        return self.block_limit or self.config.block_b

    @property
    def slots(self) -> int:
        """Blocks of candidates a row walks."""
        return self.grouped.slots if self.grouped else ceil_div(self.num_candidates, self.block)

    @property
    def last_block(self) -> int:
        """Positions used of the last slot's block."""
        return self.p.negatives - (self.slots - 1) * self.block if self.grouped else self.block

    @property
    def num_candidates(self) -> int:
        """Candidates of the item gradient: ids that are given or listed, else all positions."""
        return self.p.negatives if self.p.kind.by_id else self.p.positions

    @property
    def end_candidate(self) -> int:
        """The first position behind those that rows walk."""
        return self.p.negatives if self.grouped and not self.has_blocks else self.num_candidates

    @property
    def candidate_blocks(self) -> int:
        return ceil_div(self.num_candidates, self.block)

    @property
    def drawn_blocks(self) -> int:
        """Blocks that groups may draw; the positions left over sit out the step. Of a working set those that they
        drew."""
        if self.p.draw.given:
            return self.p.num_groups * self.slots
        return self.grouped.num_blocks if self.grouped and self.has_blocks else self.slots

    @property
    def full_slots(self) -> bool:
        """Whether every slot holds as many candidates as its tile has columns."""
        if self.p.listed:  # empty columns weigh nothing, as far as there are log weights
            full = self.p.draw.full_lists or self.p.correction == "weighted"
            return full and self.p.negatives % self.config.block_b == 0
        return self.grouped is not None and self.last_block == self.block == self.config.block_b

    @property
    def one_round(self) -> bool:
        """Whether no candidates meet more than one group of rows."""
        return self.has_blocks and self.p.rounds == 1

    @property
    def drawn_only(self) -> bool:
        """Whether the item gradient visits drawn blocks and leaves the other items to a lighter kernel."""
        return self.one_round and not self.grad_splits

    @property
    def grad_work(self) -> Work:
        work = self.config.grad_once if self.one_round or self.p.listed else self.config.grad
        if self.p.history or not work.registers:
            return work._replace(registers=None)
        # lists have two kinds of stores: the tables' limit would spill
        return work._replace(registers=LIST_REGISTERS) if self.p.listed else work

    @property
    def grad_blocks(self) -> int:
        """Programs of the item gradient for one chunk of the width and one split."""
        return self.p.num_groups * self.slots if self.drawn_only else self.candidate_blocks

    @property
    def parallel(self) -> int:
        """Programs of one chunk of the width that work is split for: two a multiprocessor."""
        return 2 * self.p.gpu.multiprocessors // self.config.num_d

    @cached_property
    def forward_tiles(self) -> int:
        return ceil_div(self.p.num_rows, self.config.forward.rows)

    @cached_property
    def forward_parts(self) -> int:
        """Parts of tiles' walks that there is room for; 0 where every walk is whole.

        How many rows count is known on the device only. Long walks are split as it says there; short ones, whose parts
        may cost more to join than they save, where there would be few tiles even if every row counted.
        """
        if self.slots == 1 or (self.slots < LONG_WALK and self.parallel < 2 * self.forward_tiles):
            return 0
        return min(self.parallel, self.forward_tiles * min(self.slots, MOST_SPLITS))

    @cached_property
    def grad_splits(self) -> int:
        """Splits of the rows that each block of candidates walks; 0 where the tile kernel writes the gradient."""
        if self.p.listed:
            return 0
        drawn = self.p.num_groups * self.slots if self.one_round else self.candidate_blocks
        visits = self.p.rounds if self.has_blocks else ceil_div(self.p.num_rows, self.grad_work.rows)
        splits = min(self.parallel // max(drawn, 1), visits, MOST_SPLITS)
        splits = ceil_div(visits, ceil_div(visits, splits)) if splits > 1 else 1
        return 0 if splits == 1 and not self.p.kind.by_id else splits

    @property
    def part_rows(self) -> int:
        """Partial gradients of an item that are in memory at a time, of split walks."""
        return self.grad_splits * self.num_candidates

    @property
    def tables(self) -> dict[str, int]:
        """group_blocks: (group, slot) -> block; visits: block -> number of groups that drew it; block_groups: (block,
        visit) -> 2 group + [last slot]."""
        blocks = self.drawn_blocks if self.has_blocks else 0
        return {
            "group_blocks": self.p.num_groups * self.slots if self.has_blocks else 0,
            "visits": blocks,
            "block_groups": 0 if self.p.draw.given else blocks * self.p.rounds,
        }
