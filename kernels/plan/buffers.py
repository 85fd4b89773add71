"""Every buffer a call writes, named, with its shape: the one description that torch and JAX both allocate from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..draws.permutation import MAX_HALF_ROUNDS, half_rounds
from ..errors import ArgumentValueError
from ..numbers import ceil_div
from .problem import POSITIVE_CHUNK, Dtype, Problem

TABLE_BLOCK = 1024  # elements a table program handles
SORTED_SLOTS = 256  # slots of a group that are put in order together
MOST_TILE_ROWS = 256  # of the item gradient, or of a group
VISIT_BLOCK = 128  # blocks of items whose visits a table program lists
SORTED_TILE = 512  # keys of rows that are sorted by counting
MOST_SORTED_ROWS = 1 << 14  # by kernels that look up each row in all tiles; for more a radix sort takes the GPU less
NO_BLOCKS = {"group_blocks": 0, "visits": 0, "block_groups": 0}  # tables of rows that share nothing
NO_LISTS = {"part_of_draw": 0, "is_summed": 0, "list_sums": 0}  # scratch where there are no lists


@dataclass(frozen=True)
class Buffer:
    """Name, shape and dtype of an array."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def num_slots(problem: Problem) -> int:
    """Places of rows: whole tiles of them, whatever the tile."""
    return ceil_div(problem.num_rows, MOST_TILE_ROWS) * MOST_TILE_ROWS


def table_sizes(problem: Problem) -> dict[str, int]:
    """The parts of the int32 table buffer, in order.

    rows: place -> row, non-ignored rows first; count: their number; row_counts: the same of each block of rows;
    positive_key: what rows are sorted by for the item gradient (the target's position), and behind them the draws of
    groups' lists; items: position -> item; the keys of the permutations' rounds; history_first, history_end: row ->
    range of its own items; and those of tiles and lists. With a working set positive_key and items come with the call.
    """
    p = problem
    draws = not p.draw.given
    return {
        "rows": num_slots(p),
        "count": 1,
        "row_counts": ceil_div(p.num_rows, TABLE_BLOCK),
        "positive_key": draws * (p.num_rows + (p.listed.draws if p.listed else 0)),
        "items": p.catalog if p.permutes_items and draws else 0,
        "item_keys": half_rounds(p.catalog) if p.permutes_items and draws else 0,
        "round_keys": draws * p.key_rounds * half_rounds(p.drawn_domain),
        "row_keys": MAX_HALF_ROUNDS if p.shuffle_rows else 0,
        "history_first": p.num_rows if p.history else 0,
        "history_end": p.num_rows if p.history else 0,
        **(p.tiled.tables if p.tiled else NO_BLOCKS),
        **(p.listed.tables if p.listed else {}),
    }


def scratch_sizes(problem: Problem) -> dict[str, int]:
    """The parts of the backward's scratch buffer, in order; of 4 bytes an element, int32 or float32.

    slot_row, slot_peak, slot_weight, slot_target: see ``input_grad_kernel``; positive_grad: the factor of each row's
    hidden state in its target's gradient; starts: first sorted row of each segment of positions; sums: of chunks of
    sorted rows with one target; draw_starts: first sorted draw of each item; and those of lists.
    """
    p = problem
    return {
        "slot_row": num_slots(p),
        "slot_peak": num_slots(p),
        "slot_weight": num_slots(p),
        "slot_target": num_slots(p),
        "positive_grad": p.num_rows,
        "starts": 0 if p.listed or not p.wanted.items else p.segments + 1,
        "sums": max(p.num_rows // POSITIVE_CHUNK, 1) * (p.dim + 1) if p.wanted.items else 0,
        "draw_starts": p.num_items + 1 if p.sorts_draws and p.wanted.items else 0,
        **(p.listed.scratch if p.listed and p.wanted.items else NO_LISTS),
    }


def place(sizes: Mapping[str, int], unit: int = 4) -> tuple[dict[str, int], int]:
    """(first element of each part, elements of all) of a buffer whose parts start at multiples of ``unit`` elements of
    4 bytes."""
    offsets, end = {}, 0
    for name, size in sizes.items():
        offsets[name] = end
        end += ceil_div(size, unit) * unit
    return offsets, end


def table_buffer(problem: Problem) -> Buffer:
    """Raises ArgumentValueError where kernels could not index it with 32 bits."""
    size = place(table_sizes(problem))[1]
    if isinstance(size, int) and size >= 2**31:
        expected = "fewer rows, so that the tables of a draw hold less than 2^31 numbers"
        raise ArgumentValueError("input", expected, f"{size} for {problem.num_rows} rows")
    return Buffer("tables", (size,), "int32")


@lru_cache(maxsize=256)
def forward_buffers(problem: Problem) -> tuple[Buffer, ...]:
    """loss, lse, peak, shift and average dot product of each row, the number of rows not ignored (at least 1), the
    negatives' average (N, D), and the partial sums of rows whose walks are split."""
    n, dim = problem.num_rows, problem.dim
    part_rows = problem.tiled.forward_parts * problem.tiled.config.forward.rows if problem.tiled else 0
    return (
        Buffer("loss", (n,), "float32"),
        Buffer("lse", (n,), "float32"),
        Buffer("counted", (), "float32"),
        Buffer("peak", (n,), "float32"),
        Buffer("shift", (n,), "float32"),
        Buffer("average_dot", (n if problem.scale_grad else 0,), "float32"),
        Buffer("average", (n, dim), problem.input_dtype),
        Buffer("part_rows", (part_rows * 4,), "float32"),
        Buffer("part_average", (part_rows * dim,), "float32"),
    )


@lru_cache(maxsize=256)
def pool_buffers(problem: Problem) -> tuple[Buffer, ...]:
    """The columns that groups choose their lists from, where these are drawn, and each one's score in its group."""
    groups, columns = problem.num_groups, problem.lists.columns if problem.lists and problem.chooses else 0
    drawn = columns if problem.draw.draws_lists else 0
    return Buffer("pool_ids", (groups, drawn), "int32"), Buffer("pool_scores", (groups, columns), "float32")


@lru_cache(maxsize=256)
def backward_buffers(problem: Problem) -> tuple[Buffer, ...]:
    """The gradients that are wanted, then scratch."""
    p = problem
    part_rows = p.listed.part_rows if p.listed else p.tiled.part_rows if p.tiled else 0
    return (
        Buffer("input_grad", (p.num_rows if p.wanted.input else 0, p.dim), p.input_dtype),
        Buffer("scale_grad", (p.num_rows if p.wanted.scale else 0,), "float32"),
        Buffer("item_grad", (p.num_items if p.wanted.weight else 0, p.dim), p.weight_dtype),
        Buffer("bias_grad", (p.num_items if p.wanted.bias else 0,), p.bias_dtype or "float32"),
        Buffer("scratch", (place(scratch_sizes(p))[1],), "int32"),
        Buffer("part_grad", (part_rows * p.dim if p.wanted.weight else 0,), "float32"),
        Buffer("part_bias", (part_rows if p.wanted.bias else 0,), "float32"),
    )


def sort_buffers(problem: Problem) -> tuple[Buffer, ...]:
    """Rows' keys in order with the rows, and memory for the sort, where kernels sort them; none where that is the
    framework's, as of many rows, and of the draws of lists."""
    n = problem.num_rows
    if problem.listed or n > MOST_SORTED_ROWS or not problem.wanted.items:
        return ()
    tiles = ceil_div(n, SORTED_TILE) * SORTED_TILE * 2  # of 8 bytes
    return (
        Buffer("sorted_keys", (n,), "int32"),
        Buffer("sorted_rows", (n,), "int32"),
        Buffer("sorted_tiles", (tiles,), "int32"),
    )
