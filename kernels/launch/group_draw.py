"""The launches that draw items before anything is scored; see ``plan/group_draw.py``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..device import tables
from ..draws.permutation import factors, half_rounds
from ..numbers import ceil_div, next_power_of_2
from ..plan.buffers import SORTED_SLOTS, TABLE_BLOCK, place
from ..plan.group_draw import GroupDraw, ListDraw
from .programs import Pointer, Program, launch
from .tables import count_rows, table_launches


@lru_cache(maxsize=256)
def group_draw_program(plan: GroupDraw | ListDraw) -> Program:
    """Pointers: target (N,), seed (2,) int32 words (low, high), slot_ends of lists drawn by slots, the plan's
    buffers."""
    return Program(table_launches(plan.problem)) if isinstance(plan, ListDraw) else _uniform_program(plan)


def _uniform_program(plan: GroupDraw) -> Program:
    draws, sizes = plan.draws, plan.table_sizes
    parts = {name: Pointer("tables", first) for name, first in place(sizes)[0].items()}
    item_shift, item_b = factors(draws.num_items)
    block_shift, block_b = factors(draws.num_blocks)
    sorted_slots = min(next_power_of_2(draws.slots), SORTED_SLOTS)
    parts_per_group = ceil_div(draws.slots, sorted_slots)
    shared = {
        "p_target": Pointer("target"), "p_seed": Pointer("seed"), "p_counts": parts["row_counts"],
        "p_item_keys": parts["item_keys"], "p_round_keys": parts["round_keys"], "p_row_keys": parts["row_keys"],
        "p_group_blocks": parts["group_blocks"], "p_drawn": Pointer("drawn"),
        "num_rows": plan.num_rows, "ignore_index": plan.ignore_index, "row_programs": sizes["row_counts"],
        "num_drawn": plan.num_drawn, "slots": draws.slots, "block": draws.block, "last_block": plan.last_block,
        "group_size": draws.group_size, "num_items": draws.num_items, "item_shift": item_shift, "item_b": item_b,
        "num_blocks": draws.num_blocks, "groups_per_round": draws.groups_per_round, "block_shift": block_shift,
        "block_b": block_b, "parts_per_group": parts_per_group,
        "ROUND_HALVES": half_rounds(draws.num_blocks), "ITEM_HALVES": half_rounds(draws.num_items),
        "SORTED_SLOTS": sorted_slots, "BLOCK": TABLE_BLOCK,
    }  # fmt: skip
    return Program([
        count_rows(
            shared, item_keys=sizes["item_keys"], round_keys=sizes["round_keys"], round_halves=sizes["round_keys"]
        ),
        launch(tables.draw_blocks_kernel, (plan.num_groups * parts_per_group,), shared),
        launch(tables.drawn_items_kernel, (ceil_div(plan.num_drawn, TABLE_BLOCK),), shared),
    ])  # fmt: skip


def launch_group_draw(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: GroupDraw | ListDraw) -> None:
    """ins: target, seed, slot_ends where lists are drawn by slots. outs: the plan's buffers, of which ``result`` tells
    where the drawn items are."""
    group_draw_program(plan).run({**ins, **outs})


def compile_kernels(plan: GroupDraw | ListDraw, target_dtype: str, gpu: int) -> None:
    """Begin to compile for targets of this dtype for a GPU, and launch nothing."""
    dtypes = dict.fromkeys(("seed", "slot_ends"), torch.int32) | {"target": getattr(torch, target_dtype)}
    dtypes |= {each.name: getattr(torch, each.dtype) for each in plan.buffers}
    with torch.cuda.device(gpu):
        group_draw_program(plan).compile_ahead(dtypes)
