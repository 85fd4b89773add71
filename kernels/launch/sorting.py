"""The launches that sort few rows by what they have as targets."""

from __future__ import annotations

import torch

from ..device import sort
from ..numbers import ceil_div
from ..plan.buffers import SORTED_TILE
from ..plan.problem import Problem
from ..plan.tiles import Work
from .bindings import bindings
from .programs import Launch, Pointer, launch

PART = 32  # keys that a tile's are compared with at a time
BLOCK, TOGETHER = 128, 16  # keys of a program, and tiles that it searches at a time
TILE_WORK = Work(0, 8, 1)


def sort_rows(p: Problem) -> list[Launch]:
    """What sorts the tables' positive_key stably; pointers: ``buffers.sort_buffers``."""
    shared, tiles, num_tiles = bindings(p), Pointer("sorted_tiles", 0, torch.int64), ceil_div(p.num_rows, SORTED_TILE)
    return [
        launch(
            sort.sort_tiles_kernel, (num_tiles,), shared,
            p_tiles=tiles, num_keys=p.num_rows, TILE=SORTED_TILE, PART=PART, work=TILE_WORK,
        ),
        launch(
            sort.merge_tiles_kernel, (num_tiles * SORTED_TILE // BLOCK,), shared,
            p_tiles=tiles, num_keys=p.num_rows, num_tiles=num_tiles, TILE=SORTED_TILE,
            HALVES=SORTED_TILE.bit_length() - 1, BLOCK=BLOCK, TOGETHER=TOGETHER,
        ),
    ]  # fmt: skip
