"""The launches that find the distinct rows of ids, and describe draws among them; see ``plan/row_set.py``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..device import row_set
from ..negatives.arguments import IGNORED
from ..numbers import ceil_div
from ..plan.buffers import TABLE_BLOCK
from ..plan.row_set import DrawnRows, RowSetPlan
from .programs import Pointer, Program, launch


@lru_cache(maxsize=256)
def row_set_program(plan: RowSetPlan) -> Program:
    """Pointers: given (n,) int32; keys and order (n,), the given ids, with what names no row as `NO_ROW`, sorted
    stably, and their places; and the plan's buffers."""
    programs = plan.key_programs
    shared = {
        **{f"p_{name}": Pointer(name) for name in ("given", "keys", "order", "ids", "places", "count", "counts")},
        "num_keys": plan.num_keys, "num_places": plan.num_places, "key_programs": programs, "BLOCK": TABLE_BLOCK,
    }  # fmt: skip
    return Program([
        launch(row_set.count_ids_kernel, (programs,), shared),
        launch(row_set.place_ids_kernel, (programs + ceil_div(plan.num_places, TABLE_BLOCK),), shared),
    ])  # fmt: skip


@lru_cache(maxsize=256)
def drawn_rows_program(plan: DrawnRows) -> Program:
    """Pointers: target (N,), places (D + N + ..,) int32 of the draws, then of the targets; and the plan's buffers."""
    draw = plan.draw
    shared = {
        **{f"p_{name}": Pointer(name) for name in ("target", "places", "drawn", "drawn_at", "target_places")},
        "p_positions": Pointer("positions"), "num_rows": draw.num_rows, "num_drawn": draw.num_drawn,
        "num_places": plan.num_places, "num_items": draw.draws.num_items, "ignore_index": draw.ignore_index,
        "IGNORED": IGNORED, "BLOCK": TABLE_BLOCK,
    }  # fmt: skip
    return Program([
        launch(row_set.start_draws_kernel, (ceil_div(plan.num_places, TABLE_BLOCK),), shared),
        launch(row_set.place_draws_kernel, (ceil_div(draw.num_drawn, TABLE_BLOCK),), shared),
        launch(row_set.place_targets_kernel, (ceil_div(draw.num_rows, TABLE_BLOCK),), shared),
    ])  # fmt: skip


def launch_row_set(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: RowSetPlan) -> None:
    """ins: given, keys, order. outs: the plan's buffers, of which ids, places and count are the results."""
    row_set_program(plan).run({**ins, **outs})


def launch_drawn_rows(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: DrawnRows) -> None:
    """ins: target, places. outs: the plan's buffers, all but drawn_at results."""
    drawn_rows_program(plan).run({**ins, **outs})


def compile_row_set(plan: RowSetPlan, gpu: int) -> None:
    """Begin to compile for JAX's arrays for a GPU, and launch nothing."""
    names = ("given", "keys", "order", *(buffer.name for buffer in plan.buffers))
    with torch.cuda.device(gpu):
        row_set_program(plan).compile_ahead(dict.fromkeys(names, torch.int32))


def compile_drawn_rows(plan: DrawnRows, gpu: int) -> None:
    """The same of draws."""
    names = ("target", "places", *(buffer.name for buffer in plan.buffers))
    with torch.cuda.device(gpu):
        drawn_rows_program(plan).compile_ahead(dict.fromkeys(names, torch.int32))
