"""The static description of one loss call: shapes, dtypes, options and the sizes that follow from them.

It is hashable, so that it can key a compiled graph, and says nothing of the values on the device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from ..draws.lists import ListDraws
from ..draws.uniform import Draws, GroupedDraws, IndependentDraws, plan_draws
from ..negatives.samplers import AllItems, UniformNegatives
from .tiles import Config, GatherConfig, Gpu, Work, gather_config, tile_config

Mode = Literal["grouped", "independent", "member", "all", "shared_ids", "row_ids", "group_ids"]
Correction = Literal["none", "uniform", "weighted", "pool"]
Dtype = Literal["float32", "float16", "bfloat16", "int32"]

NO_ID = 2**31 - 1  # what rows without a target, malformed ids and empty slots are sorted as: behind every item
INTERPRETER_GPU = Gpu(4, 90)  # stands in for a device when kernels run in Triton's interpreter
MOST_SPLITS = 64  # of the candidates that a tile of rows walks, or of the rows that a block of candidates does
LONG_WALK = 32  # blocks of candidates from which a walk is worth splitting wherever few rows count
POSITIVE_CHUNK = 64  # sorted rows whose positives are added together
LIST_BLOCK = 64  # ids of a group's list that are scored together
LIST_PART = 64  # sorted draws whose partial gradients a program adds up
LIST_REGISTERS = 168
HISTORY_ROWS = 32  # of a tile: a look-up for each of its scores takes registers
LIST_BYTES = (
    128 << 20
)  # of the partial gradients of lists that are in memory at a time, where a block of each group needs no more


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


class HistorySize(NamedTuple):
    """How many users' items there are."""

    num_users: int
    num_known: int


@dataclass(frozen=True)
class Problem:
    """One call's static numbers; ``negatives`` is K, the candidates of a row (V when every item is one).

    ``scale_grad``: whether the scale is a tensor whose gradient may be asked for. ``positive_weight``: of the
    positive's term in binary cross-entropy; None for the softmax. ``group_size`` rows share a list of ids; 1 where each
    has its own. ``correction``: whether kept draws stand for V - 1 items ("uniform"), by items' log weights for all the
    others ("weighted"), for V / pool items each ("pool"), or for themselves. ``lists``: how groups draw their lists;
    None where they are explicit. ``full_lists``: whether lists hold items only. ``history``: of rows' own items, which
    are no negatives.
    """

    num_rows: int
    num_items: int
    dim: int
    mode: Mode
    negatives: int
    input_dtype: Dtype
    weight_dtype: Dtype
    bias_dtype: Dtype | None
    softcap: float | None
    remove_accidental_hits: bool
    ignore_index: int
    scale_grad: bool
    gpu: Gpu
    positive_weight: float | None = None
    group_size: int = 1
    shuffle_rows: bool = False
    correction: Correction = "uniform"
    lists: ListDraws | None = None
    full_lists: bool = False
    history: HistorySize | None = None
    draws: Draws | None = field(default=None)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, each.name) for each in fields(self)))

    def __hash__(self) -> int:  # it is looked up at every call
        return self._hash

    @cached_property
    def tile(self) -> Config:
        # the largest power of two that divides a group: a tile of rows has one group's candidates
        rows = min(self.group_size & -self.group_size, 256) if self.has_groups else 256
        rows = min(rows, HISTORY_ROWS) if self.history else rows
        return tile_config(self.input_dtype, self.dim, rows, self.block_limit, self.gpu.capability)

    @cached_property
    def gather(self) -> GatherConfig:
        return gather_config(self.input_dtype, self.dim)

    @property
    def grouped(self) -> GroupedDraws:
        assert isinstance(self.draws, GroupedDraws)
        return self.draws

    @property
    def independent(self) -> IndependentDraws:
        assert isinstance(self.draws, IndependentDraws)
        return self.draws

    @property
    def has_groups(self) -> bool:
        return self.mode in ("grouped", "group_ids")

    @property
    def has_blocks(self) -> bool:
        """Whether groups differ in the blocks they take (else every group takes the first K positions)."""
        return self.mode == "grouped" and self.grouped.groups_per_round > 0

    @property
    def permutes_items(self) -> bool:
        """Whether candidates are positions of the step's one item permutation."""
        return self.mode == "grouped" or (self.mode == "independent" and self.independent.strata > 1)

    @property
    def is_binary(self) -> bool:
        return self.positive_weight is not None

    @property
    def uses_tiles(self) -> bool:
        return self.mode not in ("independent", "row_ids")

    @property
    def block_limit(self) -> int | None:
        """The positions of a block, where the draw fixes them."""
        if self.mode == "group_ids":
            return min(self.negatives, LIST_BLOCK)
        return self.grouped.block if self.mode == "grouped" else None

    @property
    def block(self) -> int:
        return self.block_limit or self.tile.block_b

    @property
    def slots(self) -> int:
        """Blocks of candidates a row walks."""
        return self.grouped.slots if self.mode == "grouped" else ceil_div(self.num_candidates, self.block)

    @property
    def last_block(self) -> int:
        """Positions used of the last slot's block."""
        return self.negatives - (self.slots - 1) * self.block if self.mode == "grouped" else self.block

    @property
    def num_candidates(self) -> int:
        return self.negatives if self.mode in ("shared_ids", "group_ids") else self.num_items

    @property
    def candidate_blocks(self) -> int:
        return ceil_div(self.num_candidates, self.block)

    @property
    def num_groups(self) -> int:
        return ceil_div(self.num_rows, self.group_size)

    @property
    def block_rounds(self) -> int:
        return ceil_div(self.num_groups, self.grouped.groups_per_round) if self.has_blocks else 0

    @property
    def draw_rounds(self) -> int:
        """Rounds of independent rows."""
        return ceil_div(self.num_rows, self.independent.rows_per_round) if self.mode in ("independent", "member") else 0

    @property
    def drawn_domain(self) -> int:
        """Size of what the rounds permute: the blocks of grouped rows, the places of a stratum of independent ones."""
        if self.has_blocks:
            return self.grouped.num_blocks
        return self.independent.width if self.draw_rounds else 1

    @property
    def key_rounds(self) -> int:
        """Permutations of ``drawn_domain`` whose keys a step needs."""
        return self.draw_rounds * self.independent.strata if self.draw_rounds else self.block_rounds

    @property
    def full_slots(self) -> bool:
        """Whether every slot holds as many candidates as its tile has columns."""
        if self.mode == "group_ids":  # empty columns weigh nothing, as far as there are log weights
            return (self.full_lists or self.correction == "weighted") and self.negatives % self.tile.block_b == 0
        return self.mode == "grouped" and self.last_block == self.block == self.tile.block_b

    @property
    def drawn_only(self) -> bool:
        """Whether the item gradient visits drawn blocks and leaves the other items to a lighter kernel."""
        return self.block_rounds == 1 and not self.grad_splits

    @property
    def chooses(self) -> bool:
        """Whether lists are the highest-scoring columns of a pool, which is scored before the forward."""
        return self.lists is not None and self.lists.chooses

    @property
    def draw_weight(self) -> float:
        """How many items a kept draw stands for, where its probability is not corrected for."""
        return self.num_items / self.lists.columns if self.correction == "pool" and self.lists else 1.0

    @property
    def grad_work(self) -> Work:
        work = self.tile.grad_once if self.block_rounds == 1 or self.mode == "group_ids" else self.tile.grad
        if self.history or not work.registers:
            return work._replace(registers=None)
        # lists have two kinds of stores: the tables' limit would spill
        return work._replace(registers=LIST_REGISTERS) if self.mode == "group_ids" else work

    @property
    def grad_blocks(self) -> int:
        """Programs of the item gradient for one chunk of the width and one split."""
        return self.num_groups * self.slots if self.drawn_only else self.candidate_blocks

    @property
    def parallel(self) -> int:
        """Programs of one chunk of the width that work is split for: two a multiprocessor."""
        return 2 * self.gpu.multiprocessors // self.tile.num_d

    @cached_property
    def forward_tiles(self) -> int:
        return ceil_div(self.num_rows, self.tile.forward.rows)

    @cached_property
    def forward_parts(self) -> int:
        """Parts of tiles' walks that there is room for; 0 where every walk is whole.

        How many rows count is known on the device only. Long walks are split as it says there; short ones, whose parts
        may cost more to join than they save, where there would be few tiles even if every row counted.
        """
        if (
            not self.uses_tiles
            or self.slots == 1
            or (self.slots < LONG_WALK and self.parallel < 2 * self.forward_tiles)
        ):
            return 0
        return min(self.parallel, self.forward_tiles * min(self.slots, MOST_SPLITS))

    @cached_property
    def grad_splits(self) -> int:
        """Splits of the rows that each block of candidates walks; 0 where the tile kernel writes the gradient
        itself."""
        if not self.uses_tiles or self.mode == "group_ids":
            return 0
        drawn = self.num_groups * self.slots if self.block_rounds == 1 else self.candidate_blocks
        visits = self.block_rounds if self.has_blocks else ceil_div(self.num_rows, self.grad_work.rows)
        splits = min(self.parallel // max(drawn, 1), visits, MOST_SPLITS)
        splits = ceil_div(visits, ceil_div(visits, splits)) if splits > 1 else 1
        return 0 if splits == 1 and self.mode != "shared_ids" else splits

    @cached_property
    def list_columns(self) -> int:
        """Columns of the groups' lists whose partial gradients are in memory at a time; sort keys of all columns fit 32
        bits."""
        per_block = self.num_groups * LIST_BLOCK * self.dim * 4
        blocks = ceil_div(self.negatives, LIST_BLOCK)
        passes = min(ceil_div(blocks, max(LIST_BYTES // per_block, 1)), (2**31 - 1) // (self.num_items + 1) - 1)
        return ceil_div(blocks, passes) * LIST_BLOCK

    @property
    def list_draws(self) -> int:
        """Places of all groups' lists together."""
        return self.num_groups * self.negatives if self.mode == "group_ids" else 0

    @property
    def no_key(self) -> int:
        """What rows without a target are sorted by: behind every item, and before the draws of lists."""
        return self.num_items if self.mode == "group_ids" else NO_ID

    @property
    def part_rows(self) -> int:
        """Partial gradients of an item that are in memory at a time."""
        return (
            self.num_groups * self.list_columns if self.mode == "group_ids" else self.grad_splits * self.num_candidates
        )

    @property
    def segment_unit(self) -> int:
        """Positions of one segment of sorted positives: a block's, or one item's where programs serve single items."""
        return self.block if self.uses_tiles and not self.grad_splits else 1

    @property
    def segments(self) -> int:
        return ceil_div(self.num_items, self.segment_unit)

    @property
    def sorts_draws(self) -> bool:
        """Whether the item gradient needs the explicit ids sorted, apart from rows' targets."""
        return self.mode in ("shared_ids", "row_ids")


def choose_mode(
    sampler: UniformNegatives | AllItems | None, num_items: int, ids_per_row: bool, group_size: int
) -> tuple[Mode, Draws | None]:
    """How a sampler (or ids, when it is None) is computed, and the draw behind it."""
    if sampler is None:
        return ("group_ids" if group_size > 1 else "row_ids" if ids_per_row else "shared_ids"), None
    draws = plan_draws(sampler, num_items)
    if draws is None:
        return "all", None
    if isinstance(draws, GroupedDraws):
        return "grouped", draws
    return ("member" if draws.rows_per_round == 1 else "independent"), draws


def build_problem(
    num_rows: int, dim: int, num_items: int, ids_shape: tuple[int, ...] | None, input_dtype: Dtype, weight_dtype: Dtype,
    bias_dtype: Dtype | None, sampler: UniformNegatives | AllItems | None, softcap: float | None,
    remove_accidental_hits: bool, ignore_index: int,
    scale_grad: bool, positive_weight: float | None, group_size: int, shuffle_rows: bool, correction: Correction,
    lists: ListDraws | None, full_lists: bool, history: HistorySize | None, gpu: Gpu,
) -> Problem:  # fmt: skip
    """The problem of a call on flat rows; ``sampler`` None takes ``lists`` that groups draw, or explicit ids of shape
    ``ids_shape``: (K,), (N, K), or with a ``group_size`` above 1 (groups, K)."""
    mode, draws = choose_mode(sampler, num_items, ids_shape is not None and len(ids_shape) == 2, group_size)
    negatives = num_items if draws is None else draws.negatives
    if ids_shape is not None:
        negatives = ids_shape[-1]
    elif lists is not None:
        negatives, full_lists = lists.negatives, not lists.has_rows
    if isinstance(draws, GroupedDraws):
        group_size, shuffle_rows = draws.group_size, draws.shuffle_rows
    return Problem(
        num_rows=num_rows,
        num_items=num_items,
        dim=dim,
        mode=mode,
        negatives=negatives,
        input_dtype=input_dtype,
        weight_dtype=weight_dtype,
        bias_dtype=bias_dtype,
        softcap=softcap,
        remove_accidental_hits=remove_accidental_hits,
        ignore_index=ignore_index,
        scale_grad=scale_grad,
        positive_weight=positive_weight,
        group_size=group_size,
        shuffle_rows=shuffle_rows,
        correction=correction,
        lists=lists,
        full_lists=full_lists,
        history=history,
        gpu=gpu,
        draws=draws,
    )


# what follows from the shapes is worked out once: a small step's host time is mostly launches
cached_problem = lru_cache(maxsize=256)(build_problem)


def interprets() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on CPU arrays."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
